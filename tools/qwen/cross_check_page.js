'use strict';
// The data of a cross-check, drawn. All text goes in by textContent, never as markup.
const data = JSON.parse(document.getElementById('data').textContent);
const main = document.getElementById('main');
const svgNames = document.getElementById('shape').namespaceURI;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function shape(name, attributes, text) {
  const made = document.createElementNS(svgNames, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function section(title, note) {
  const made = element('section', {}, element('h2', {}, title));
  if (note) made.append(element('p', {class: 'dim'}, note));
  main.append(made);
  return made;
}
const figure = v => v === null || v === undefined ? 'not finite' : String(Number(v.toPrecision(3)));
const count = n => n.toLocaleString('en');
const layerText = layer => layer === null || layer < 0 ? 'model' : 'layer ' + layer;
const tokenText = ([seq, token]) => `seq ${seq} token ${token}`;

function header() {
  const kinds = {agree: ['✓ agree', 'good'], diverge: ['✕ diverge', 'bad'],
                 cannot_tell: ['? cannot tell', 'bad']};
  const [text, kind] = kinds[data.verdict] || [data.verdict, 'bad'];
  const badge = document.getElementById('verdict');
  badge.textContent = text;
  badge.classList.add(kind);
  const model = data.model, worst = data.worst;
  const facts = {
    Model: [model.name || model.file, model.arch, model.file_type].filter(Boolean).join(' · '),
    File: model.file,
    Device: [data.device.kind, data.device.name].filter(Boolean).join(' · '),
    Oracle: data.oracle,
    Checked: `${count(data.tokens)} tokens, ${count(data.checks)} outputs, ` +
             `${count(data.elements)} elements; ${count(data.unsound)} cannot be told`,
    Load: `${count(data.load.weights)} weights attested, ${data.load.findings.length} findings`,
    'Worst that passed': `${figure(worst.ratio)} of the tolerance, ${worst.op} ` +
                         layerText(worst.layer),
  };
  if (data.logits) {
    const l = data.logits;
    facts.Logits = `KL ${figure(l.kl_mean)} mean, ${figure(l.kl_max)} most; the likeliest ` +
        `token agrees for ${figure(100 * l.top1_agree)} %; ${l.flips} flips, ` +
        `${l.flips_explained} explained`;
  }
  const list = document.getElementById('facts');
  for (const [name, value] of Object.entries(facts)) {
    list.append(element('dt', {}, name), element('dd', {}, value));
  }
}

function listTable(title, note, heads, rows) {
  if (rows.length === 0) return;
  const body = element('tbody', {});
  for (const row of rows) {
    body.append(element('tr', {}, ...row.map(cell => element('td', {}, String(cell)))));
  }
  const head = element('tr', {}, ...heads.map(name => element('th', {scope: 'col'}, name)));
  section(title, note).append(element('div', {class: 'scroll', tabindex: 0}, element(
      'table', {class: 'list'}, element('thead', {}, head), body)));
}

function tables() {
  listTable('Found at load', '', ['op', 'where', 'operand', 'got', 'expected'],
            data.load.findings.map(
                f => [f.op, layerText(f.layer), f.operand, f.got, f.expected]));
  const left = data.divergences_left_out ? ` ${count(data.divergences_left_out)} more follow.` : '';
  listTable('Divergences',
            'In the order in which they happened: the first is where to look.' + left,
            ['op', 'where', 'token', 'element', 'got', 'expected', 'error', 'tolerance', 'failed',
             'cause', 'evidence'],
            data.divergences.map(d => [
              d.op, layerText(d.layer), tokenText([d.seq, d.token]), d.coords.join(', '),
              figure(d.got), figure(d.expected), figure(d.error), figure(d.tolerance),
              `${count(d.failed)} of ${count(d.of)}`, d.cause.name, d.cause.evidence]));
  listTable('Cannot be told', 'D is the median tolerance beside the root mean square of the ' +
            'values. Beyond 2 % the check cannot discriminate.',
            ['op', 'where', 'widest at', 'D', 'bounds beyond the range', 'outputs'],
            data.unsound_outputs.map(u => [
              u.op, layerText(u.layer), tokenText([u.seq, u.token]),
              u.d === null ? 'not finite' : figure(100 * u.d) + ' %', figure(100 * u.beyond) + ' %',
              count(u.outputs)]));
}

// A cell's check: two characters of six bits. 10 bits of log10(error / tolerance), then whether the
// bits are the same, then whether the bounds say nothing.
const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const digitValue = new Map([...digits].map((c, i) => [c, i]));
const kNone = 0, kZero = 1, kFirst = 2, kSteps = 1020, kInfinite = 1023, kDecades = 8;
function checkAt(cell, i) {
  const bits = digitValue.get(cell.data[2 * i]) * 64 + digitValue.get(cell.data[2 * i + 1]);
  const code = bits & 1023;
  const log = code === kZero ? -Infinity : code === kInfinite ? Infinity :
      ((code - kFirst + .5) / kSteps - .5) * kDecades;
  return {code, log, same: (bits & 1024) !== 0, unsound: (bits & 2048) !== 0};
}
function worstOf(cell) {
  const all = {code: kNone, log: -Infinity, same: true, unsound: false};
  for (let i = 0; i < data.heat.tokens.length; ++i) {
    const check = checkAt(cell, i);
    if (check.code === kNone) continue;
    if (all.code === kNone || check.log > all.log) {
      [all.code, all.log, all.at] = [check.code, check.log, i];
    }
    all.same &&= check.same;
    all.unsound ||= check.unsound;
  }
  return all;
}
// From -3 to +3 decades, blue to orange; the neutral middle is the tolerance.
function colour(log) {
  const depth = Math.min(1, Math.abs(log) / 3);
  return `rgba(var(${log > 0 ? '--high' : '--low'}), ${(.08 + .92 * depth).toFixed(2)})`;
}
function checkText(check) {
  if (check.code === kNone) return 'not checked';
  const bits = check.same ? ', the same bits' : '';
  const ratio = check.code === kZero ? 'no error' : check.code === kInfinite ?
      'beyond any tolerance' : figure(10 ** check.log) + ' of the tolerance';
  const verdict = check.unsound ? 'cannot be told' : check.log > 0 ? 'fails' : 'passes';
  return `${ratio}${bits}: ${verdict}`;
}

// Calls `changed` with the index of a token, or -1 for all.
function tokenPicker(tokens, changed) {
  const slider = element('input', {type: 'range', min: 0, max: tokens.length, value: 0,
                                   'aria-label': 'token; at the left end all tokens'});
  const label = element('span', {}, '');
  const all = element('button', {type: 'button'}, 'all tokens');
  const show = () => {
    const i = Number(slider.value) - 1;
    const text = i < 0 ? 'all tokens (worst)' : tokenText(tokens[i]);
    label.textContent = text;
    slider.setAttribute('aria-valuetext', text);
    changed(i);
  };
  slider.addEventListener('input', show);
  all.addEventListener('click', () => { slider.value = 0; show(); });
  return {bar: element('div', {class: 'pick'}, all, slider, label), show};
}

function legend() {
  const bar = element('div', {class: 'legend'}, element('span', {}, 'error / tolerance: 10⁻³'));
  for (let log = -3; log <= 3; ++log) {
    bar.append(element('i', {style: 'background-image: linear-gradient(' + colour(log) + ',' +
                                    colour(log) + ')'}));
  }
  bar.append(element('span', {}, '10³'),
             element('span', {}, '✕ fails · ? cannot be told · = the same bits'));
  return bar;
}

// The arrow keys, Home and End move the focus from cell to cell.
function gridKeys(rows, event) {
  for (let r = 0; r < rows.length; ++r) {
    const c = rows[r].indexOf(event.target);
    if (c < 0) continue;
    const to = {ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1],
                ArrowRight: [r, c + 1], Home: [r, 0], End: [r, rows[r].length - 1]}[event.key];
    const next = to && rows[to[0]] && rows[to[0]][to[1]];
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    event.preventDefault();
    return;
  }
}

function heatMap() {
  const {tokens, cells} = data.heat;
  if (cells.length === 0) return;
  const ops = [...new Set(cells.map(c => c.op))];
  const layers = [...new Set(cells.map(c => c.layer))].sort((a, b) => a - b);
  const made = section('Error beside its tolerance, by layer and op');
  const readout = element('output', {'aria-live': 'polite'}, '');
  const rows = [];
  const shown = [];  // [cell, td]
  const body = element('tbody', {});
  for (const layer of layers) {
    const row = element('tr', {}, element('th', {scope: 'row'}, layerText(layer)));
    rows.push([]);
    for (const op of ops) {
      const td = element('td', {tabindex: -1});
      const cell = cells.find(c => c.layer === layer && c.op === op);
      if (cell) shown.push([cell, td]);
      if (!cell) td.setAttribute('aria-label', 'no such op');
      rows[rows.length - 1].push(td);
      row.append(td);
    }
    body.append(row);
  }
  rows[0][0].tabIndex = 0;
  const head = element('tr', {}, element('td', {style: 'visibility: hidden'}));
  for (const op of ops) head.append(element('th', {scope: 'col'}, op));
  const table = element('table', {class: 'map', role: 'grid'}, element('thead', {}, head), body);
  table.addEventListener('keydown', event => gridKeys(rows, event));
  for (const kind of ['focusin', 'mouseover']) {
    table.addEventListener(kind, event => {
      readout.textContent = event.target.getAttribute('aria-label') || '';
    });
  }
  const picker = tokenPicker(tokens, chosen => {
    for (const [cell, td] of shown) {
      const check = chosen < 0 ? worstOf(cell) : checkAt(cell, chosen);
      const at = chosen >= 0 ? tokenText(tokens[chosen]) :
          check.at === undefined ? 'all tokens' : 'worst at ' + tokenText(tokens[check.at]);
      const none = check.code === kNone;
      td.textContent = none ? '' : check.unsound ? '?' : check.log > 0 ? '✕' :
          check.same ? '=' : '';
      td.style.backgroundImage =
          none ? '' : `linear-gradient(${colour(check.log)}, ${colour(check.log)})`;
      td.style.color = Math.abs(check.log) > 1.5 ? 'var(--page)' : '';
      td.setAttribute('aria-label', `${layerText(cell.layer)} · ${cell.op} · ${at}: ` +
                                    checkText(check));
    }
    readout.textContent = '';
  });
  made.append(picker.bar, legend(), element('div', {class: 'scroll'}, table), readout);
  picker.show();
}

// Runs of equal characters, so that long texts stay few shapes.
function runs(text) {
  const all = [];
  for (let i = 0; i < text.length; ++i) {
    const last = all[all.length - 1];
    if (last && last.kind === text[i]) last.end = i + 1;
    else all.push({kind: text[i], begin: i, end: i + 1});
  }
  return all;
}

function exactStrip() {
  if (data.heat.exact.length === 0) return;
  const tokens = data.heat.tokens;
  const kinds = {'=': ['same', 'the same bits'], '~': ['other', 'other bits, within the tolerance'],
                 'x': ['differs', 'differs']};
  const body = element('tbody', {});
  for (const row of data.heat.exact) {
    const strip = shape('svg', {viewBox: `0 0 ${tokens.length} 1`, height: 14, role: 'img',
                                preserveAspectRatio: 'none'});
    strip.setAttribute('aria-label', `${row.name}: ${row.differ} of ${row.checks} differ`);
    for (const run of runs(row.data)) {
      if (!kinds[run.kind]) continue;
      const [kind, text] = kinds[run.kind];
      const bar = shape('rect', {x: run.begin, y: 0, width: run.end - run.begin, height: 1,
                                 class: kind});
      const to = run.end - run.begin > 1 ? ' to ' + tokenText(tokens[run.end - 1]) : '';
      bar.append(shape('title', {}, `${tokenText(tokens[run.begin])}${to}: ${text}`));
      strip.append(bar);
    }
    const sum = row.differ === 0 ? `✓ ${count(row.checks)}` :
        `✕ ${count(row.differ)} of ${count(row.checks)}`;
    body.append(element('tr', {}, element('td', {}, row.name), element('td', {}, sum),
                        element('td', {class: 'wide'}, strip)));
  }
  section('Bit for bit', 'Token by token, all layers together: the given inputs, the embedding, ' +
          'what is written to the cache, and the whole cache at the end of each step (kv_ledger).')
      .append(element('table', {class: 'strip'}, body));
}

// Of the points [layer, drift], on a log scale.
function curve(points, x, y, kind) {
  const text = points.map(p => `${x(p[0])},${y(p[1])}`).join(' ');
  return shape('polyline', {class: kind, points: text});
}

function driftCurves() {
  const drift = data.drift || [];
  const logs = drift.flatMap(d => [d.path, 3 * d.twins]).filter(v => v > 0).map(Math.log10);
  if (logs.length === 0) return;
  const key = d => d.seq + ' ' + d.token;
  const tokens = [...new Map(drift.map(d => [key(d), [d.seq, d.token]])).values()];
  const made = section('Drift by layer', 'Each path by itself on the same tokens: how far it is ' +
                       'from the oracle (solid orange), beside the largest of the twins that ' +
                       'round at random (blue), and three times that (dashed), the limit.');
  const [width, height, left, bottom] = [900, 260, 70, 24];
  const low = Math.floor(logs.reduce((a, b) => Math.min(a, b)));
  const high = Math.ceil(logs.reduce((a, b) => Math.max(a, b)));
  const layers = [...new Set(drift.map(d => d.layer))].sort((a, b) => a - b);
  const x = layer => left + (width - left - 10) * layers.indexOf(layer) /
      Math.max(1, layers.length - 1);
  const y = v => 10 + (height - bottom - 10) *
      (high - Math.max(low, Math.log10(v))) / Math.max(1, high - low);
  const chart = shape('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img'});
  const readout = element('output', {'aria-live': 'polite'}, '');
  const picker = tokenPicker(tokens, chosen => {
    const rows = layers.map(layer => {
      const here = drift.filter(d => d.layer === layer &&
                                (chosen < 0 || key(d) === tokens[chosen].join(' ')));
      const most = value => here.reduce((a, d) => Math.max(a, value(d)), 0);
      return {layer, path: most(d => d.path), twins: most(d => d.twins),
              over: most(d => d.twins > 0 ? d.path / d.twins : 0)};
    });
    chart.replaceChildren();
    for (let decade = low; decade <= high; ++decade) {
      chart.append(shape('text', {x: 4, y: y(10 ** decade) + 4}, '1e' + decade));
    }
    for (const layer of layers) {
      chart.append(shape('text', {x: x(layer) - 6, y: height - 6}, layer));
    }
    chart.append(curve(rows.map(r => [r.layer, r.path]), x, y, 'path'),
                 curve(rows.map(r => [r.layer, r.twins]), x, y, 'twins'),
                 curve(rows.map(r => [r.layer, 3 * r.twins]), x, y, 'limit'));
    const worst = rows.reduce((a, b) => b.over > a.over ? b : a);
    readout.textContent = `largest beside the twins: ${figure(worst.over)} of 3 allowed, at ` +
        layerText(worst.layer);
    chart.setAttribute('aria-label', readout.textContent);
  });
  made.append(picker.bar, chart, readout);
  picker.show();
}

header();
tables();
heatMap();
driftCurves();
exactStrip();

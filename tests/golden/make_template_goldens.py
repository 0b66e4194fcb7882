#!/usr/bin/env python3
"""Renders small templates with Jinja2, set up as Hugging Face's apply_chat_template does, and writes
template_features.jsonl: {"template", "context", "rendered"} or, where Jinja2 raises an exception when
parsing or rendering, {"template", "context", "error": true}. Needs jinja2 (3.1.6 wrote the file)."""

import json
import pathlib
import re

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


ENV = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception

MESSAGES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi \u4f60\u597d \U0001f600"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": [True, None, 1.5]}}}]},
        {"role": "tool", "content": "42"},
        {"role": "user", "content": "  bye\n"},
    ],
    "add_generation_prompt": True,
}
DATA = {
    "s": "h\u00e9llo w\u00f6rld \U0001f600!",
    "pad": " \t\n x \u3000",
    "n": 7,
    "f": 2.5,
    "t": True,
    "nothing": None,
    "xs": [3, 1, 2],
    "empty": [],
    "words": ["a", "b", "c"],
    "d": {"k": "v", "z": 1, "items": "shadow", "update": "hidden", "nested": {"x": [1, {"y": "deep"}]}},
    "rows": [{"n": "p", "v": 1, "on": True}, {"n": "q", "v": 2, "on": False}, {"n": "r", "v": 3}],
    "quote": "it's \"q\" \\ \n\t\u0001 </script> & \u007f",
    "big": 18446744073709551615,
    "floats": [0.1, 1e16, 1e15, 123456789012345680.0, 1e-4, 1e-5, 1.0, -0.0, 1e300, 5e-324, 3.14159, 100.0],
}

MESSAGE_TEMPLATES = [
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m['role'] }}>\n{% endfor %}",
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{% if loop.first %}F{% endif %}"
    "{% if loop.last %}L{% endif %} {{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }};{% endfor %}",
    "{% for m in messages[1:] %}{{ loop.previtem.role if loop.previtem is defined }}>"
    "{{ m.role }}>{{ loop.nextitem.role }};{% endfor %}",
    "{% for m in messages[::-1] %}{{ loop.index0 }}{{ m.role }} {% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}|{% endfor %}",
    "{% for m in messages if m.role == 'nobody' %}x{% else %}none{% endfor %}",
    "{{ messages[0]['role'] }} {{ messages[-1].role }} {{ messages[9] }} {{ messages[0].absent }}",
    "{{ messages | length }} {{ messages[0] | length }} {{ messages[1].content | length }}",
    "{{ messages | tojson }}",
    "{{ messages[2] | tojson(indent=2) }}",
    "{{ messages[2].tool_calls[0].function.arguments | tojson(indent=4, ensure_ascii=True) }}",
    "{{ messages }}",
    "{%- set ns = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}{{ ns.last }}",
    "{% if messages[0].role == 'system' %}{% set sys = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{{ sys }}:{{ rest | length }}",
    "{{ messages | map(attribute='role') | join(', ') }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}",
    "{{ messages | rejectattr('role', 'in', ['user', 'tool']) | list | length }}",
    "{{ messages | selectattr('tool_calls') | list | length }}",
    "{{ messages | selectattr('tool_calls', 'defined') | list | length }}",
    "{{ (messages | selectattr('role', 'eq', 'user') | first).content }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% continue %}{% endif %}{% if m.role == 'tool' %}"
    "{% break %}{% endif %}{{ m.role }} {% endfor %}end",
    "{% for m in messages %}{% for t in m.tool_calls %}{{ t.function.name }}({% for k, v in t.function.arguments.items() %}"
    "{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %}){% endfor %}{% endfor %}",
    "{% for m in messages %}{% for t in m.tool_calls or [] %}{% for k, v in t.function.arguments|items %}"
    "{{ loop.index }}{{ k }}{{ v | tojson }} {% endfor %}{% endfor %}{% endfor %}",
    "{% macro msg(m, pre='<', post='>') %}{{ pre }}{{ m.role }}{{ post }}{% endmacro %}"
    "{% for m in messages %}{{ msg(m) }}{{ msg(m, post=']') }}{% endfor %}",
    "{{ raise_exception('no') }}",
    "{% if messages | length > 100 %}{{ raise_exception('no') }}{% endif %}ok",
    "{{ messages[1].content[-1] }}{{ messages[1].content[3:5] }}{{ messages[1].content[::-1] }}",
    "{{ '<|im_start|>' + messages[1].role + '\\n' + messages[1].content + '<|im_end|>' }}",
    "{% for m in messages recursive_is_no_keyword %}{% endfor %}",
    "{{ messages[2].content + messages[2].nothing }}",
    "{{ loop }}{% for m in messages %}{% endfor %}{{ loop is defined }}",
    "{% for m in messages %}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{% for m in messages %}{{ loop.unknown }}{{ loop['index'] }}{% endfor %}",
    "{% for m in messages %}{% for c in m.role[:2] %}{{ c }}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
]

# White space control: every sign at every place.
SPACE_TEMPLATES = [
    f"a \n  {b}{{% if true %}}{c}  x \n  {d}{{% endif %}}{e} \n b"
    .replace("{% if", "{%" + s1 + " if").replace("true %}", "true " + s2 + "%}")
    .replace("{% endif %}", "{%" + s3 + " endif " + s4 + "%}")
    for b, c, d, e in [("", "\n", "", "\n"), ("t", "", "t", "")]
    for s1 in ("", "-", "+") for s2 in ("", "-", "+") for s3, s4 in (("", ""), ("-", "-"), ("+", "+"))
] + [
    "  {% if true %}  \n  y  {% endif %}  \n",
    "\n\n{{ n }}\n\n",
    "{{ n }}\n",
    "{{ n }}\r\n\r\n",
    "a\r\nb\rc\n",
    "a {{- n -}} b {{ n -}} c {{- n }} d",
    "a\n  {{ n }}\n  {{- n }}\n",
    "a\n  {# c #}\n  b{# c #}\nc {#- d -#} \n e {#+ f +#}\n g",
    "{# {{ n }} {% if %} #}x",
    "  {# c -#}  \n {#- c #}  y",
    "\u3000{%- if true -%}\u3000x\u2003{%- endif -%}\u00a0y",
    "{% for x in xs %}\n  {{ x }}\n{% endfor %}\nend",
    "{%- for x in xs %}\n  {{- x }}\n{%- endfor %}\nend",
    "{% for x in xs -%}\n  {{ x }}\n{% endfor -%}\nend",
    "{%- set a = 1 %}\n\n{%+ set b = 2 %}\n {% set c = 3 +%}\n{{ a }}{{ b }}{{ c }}",
    "x{%if true%}y{%endif%}z",
    "{{n}}{{-n-}}{{+n}}",
    "{% if true: %}colon{% endif %}",
    "{ { } } {n} {%% }",
    "{{ '}}' }}{{ '%}' }}{% if '%}' %}ok{% endif %}{{ {'a': {'b': 1}}['a']['b'] }}",
    "{{ '{# no comment #}' }}",
    "{{\n  n\n}}",
    "{%\n if true\n%}\nz{%\nendif\n%}",
    "\t {% set x = 1 %}\t\n \t{% set y = 2 %}q\n",
]

DATA_TEMPLATES = [
    # literals and printing
    "{{ 1 }} {{ 1.0 }} {{ 1e3 }} {{ 1.5E-7 }} {{ 1_000 }} {{ 'a' 'b' \"c\" }} {{ true }} {{ False }} {{ none }} {{ None }}",
    "{{ [1, 'a', none, true, 1.5, [], {}, (1,), (1, 2), ()] }}",
    "{{ {'a': 1, \"b\": 'x', 3: none, true: 2, none: 1} }}",
    "{{ 'esc: \\n \\t \\\\ \\' \\\" \\x41 \\u00e9 \\U0001f600 \\101 \\q \\0end' }}",
    "{{ \"it's\" }} {{ ['it\\'s', 'say \"x\"', 'both \\' \"', 'n\\n', '\\x01\\x7f\\xa0\\u200b'] }}",
    "{{ 'line\\\ncontinued\nnext' }}",
    "{{ floats }} {{ floats | tojson }}",
    "{% for x in floats %}{{ x }} {% endfor %}",
    "{{ big }} {{ big + 1 }} {{ big * 2 }} {{ -big }} {{ big | tojson }}",
    "{{ quote }}|{{ quote | tojson }}|{{ [quote] }}",
    "{{ d }}{{ d | tojson }}",
    "{{ rows | tojson(indent=2) }}",
    "{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}{{ [[]] | tojson(indent=1) }}{{ [1] | tojson(indent=0) }}",
    "{{ d | tojson(separators=(',', ':')) }}{{ d | tojson(sort_keys=true) }}{{ d | tojson(indent='--') }}",
    "{{ s | tojson(ensure_ascii=true) }}{{ quote | tojson(true) }}",
    "{{ (1, 2) | tojson }}{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}",
    "{{ missing | tojson }}",
    "{{ range(3) | tojson }}",
    "{{ 1, 2 }}",
    "{{ (n) }}{{ (n,) }}{{ [n,] }}{{ {'a': n,} }}",
    # arithmetic
    "{{ 7 + 2 }} {{ 7 - 9 }} {{ 7 * 2 }} {{ 7 / 2 }} {{ 8 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }}",
    "{{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ** 0.5 }} {{ 2 ** 100 }}",
    "{{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ 1e16 + 1.0 }} {{ 0.1 + 0.2 }} {{ 1 / 3 }} {{ -0.0 }}",
    "{{ true + 1 }} {{ true * 3 }} {{ -true }} {{ +f }} {{ - n }} {{ 1 - -1 }} {{ +false }}",
    "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ 1.0 // 0 }}", "{{ 0 ** -1 }}",
    "{{ 'ab' * 3 }}{{ 2 * 'x' }}{{ 'x' * -1 }}{{ [0] * 2 }}{{ (1,) * 2 }}{{ [1] + [2] }}{{ (1,) + (2,) }}",
    "{{ 'a' + 1 }}", "{{ none + 'a' }}", "{{ [1] + (2,) }}", "{{ 'a' - 'b' }}", "{{ -'a' }}", "{{ 'a' * 'b' }}",
    "{{ 'a' ~ 1 ~ none ~ 1.5 ~ true ~ missing ~ [1] }}",
    "{{ 1 ~ 2 + 3 }} {{ 1 + 2 ~ 3 }} {{ 2 * 3 ~ 4 }}",
    "{{ 2 + 3 * 4 - 1 }} {{ (2 + 3) * 4 }} {{ 2 * 3 % 4 }} {{ 10 - 2 - 3 }}",
    # comparison and logic
    "{{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ none == false }} {{ [1, 2] == [1, 2] }} {{ [1] == (1,) }} {{ {'a': 1} == {'a': 1.0} }}",
    "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 >= 2 }} {{ 'a' < 'b' }} {{ 'B' < 'a' }} {{ [1, 2] < [1, 3] }} {{ [1] < [1, 0] }} {{ 1 != 2 }}",
    "{{ 1 < 'a' }}", "{{ none < 1 }}", "{{ {} < {} }}",
    "{{ 'ell' in 'hello' }} {{ 3 in xs }} {{ 9 not in xs }} {{ 'k' in d }} {{ 'v' in d }} {{ '' in 'a' }} {{ 1 in (1, 2) }} {{ 2 in range(3) }}",
    "{{ 1 in 'abc' }}", "{{ 'a' in none }}", "{{ 1 in 5 }}", "{{ [1] in d }}", "{{ 'a' in missing }}",
    "{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ '' or none }} {{ not 1 }} {{ not not [] }} {{ not 1 == 2 }} {{ 1 or 2 and 0 }}",
    "{{ not missing and not missing.x }}",
    "{{ 'a' if n > 3 else 'b' }} {{ 'a' if n > 30 else 'b' }} {{ 'only' if false }} {{ 1 if 0 else 2 if 0 else 3 }}",
    "{% if none %}a{% elif 0 %}b{% elif '' %}c{% elif [] %}d{% elif {} %}e{% elif 0.0 %}f{% elif missing %}g{% else %}h{% endif %}",
    "{% if n == 7 %}A{% if f > 9 %}B{% else %}C{% endif %}{% else %}D{% endif %}",
    "{% if 'x' if n else 'y' %}{% endif %}",
    # tests
    "{{ n is defined }} {{ missing is defined }} {{ missing is undefined }} {{ d.k is defined }} {{ d.nope is not defined }} {{ nothing is none }} {{ nothing is defined }}",
    "{{ s is string }} {{ d is mapping }} {{ xs is iterable }} {{ s is iterable }} {{ n is iterable }} {{ xs is sequence }} {{ d is sequence }} {{ n is number }} {{ t is number }} {{ t is boolean }} {{ n is boolean }} {{ t is true }} {{ t is false }} {{ 1 is true }}",
    "{{ n is odd }} {{ n is even }} {{ 4 is divisibleby 2 }} {{ 4 is divisibleby(3) }} {{ n is integer }} {{ t is integer }} {{ f is float }} {{ n is eq 7 }} {{ n is ne 7 }} {{ n is in xs }} {{ n is gt(3) }} {{ n is ge 7 }} {{ n is lt 7 }} {{ n is le 7 }} {{ none is sameas none }}",
    "{{ missing is string }} {{ missing is iterable }} {{ missing is sequence }} {{ missing is mapping }} {{ missing is none }} {{ missing is number }}",
    "{{ range(2) is sequence }} {{ d.items() is sequence }} {{ (xs | map('string')) is sequence }} {{ (xs | map('string')) is iterable }} {{ (1,) is sequence }}",
    "{{ not n is defined }} {{ n is not string and f is not none }} {{ n is defined or x }} {{ 'y' if n is defined else 'z' }}",
    "{{ 'a' is odd }}", "{{ missing is odd }}", "{{ n is nosuchtest }}", "{{ n is defined is defined }}",
    # subscripts and attributes
    "{{ xs[0] }} {{ xs[-1] }} {{ xs[5] }} {{ xs['a'] }} {{ xs.a }} {{ xs.0 }} {{ xs[true] }} {{ xs[1.0] }} {{ s[1] }} {{ s[-2] }} {{ s[99] }}",
    "{{ d.k }} {{ d['k'] }} {{ d.nested.x[1].y }} {{ d['nested']['x'][1]['y'] }} {{ d.nope }} {{ d['nope'] }} {{ d[1] }} {{ d[[1]] }}",
    "{{ d['items'] }} {{ d.items is string }} {{ d.items is defined }} {{ d.update }} {{ d['update'] }} {{ d.keys is defined }} {{ s.upper is defined }} {{ s.nope is defined }} {{ xs.append is defined }} {{ xs.count is defined }}",
    "{{ xs[1:] }} {{ xs[:1] }} {{ xs[:-1] }} {{ xs[::-1] }} {{ xs[::2] }} {{ xs[-2:] }} {{ xs[5:] }} {{ xs[-9:9] }} {{ xs[2:0:-1] }} {{ xs[2:-9:-1] }} {{ xs[9::-1] }} {{ xs[-9::-1] }} {{ xs[none:none] }} {{ xs[:] }}",
    "{{ s[1:] }}|{{ s[:1] }}|{{ s[:-1] }}|{{ s[::-1] }}|{{ s[::3] }}|{{ s[-3:] }}|{{ s[50:] }}|{{ s[-50:4] }}|{{ s[8:2:-2] }}|{{ s[4:1] }}",
    "{{ (1, 2, 3)[1:] }} {{ (1, 2, 3)[-1] }} {{ range(5)[3] }} {{ range(9)[2:6] | list }}",
    "{{ xs[::0] }}", "{{ d[1:] }}", "{{ xs['a':] }}", "{{ nothing[1:] }}", "{{ missing[1:] }}", "{{ 5[0] }}",
    "{{ missing.x }}", "{{ missing['x'] }}", "{{ d.nope.x }}", "{{ missing }}[{{ d.nope }}]", "{{ none.x }}|{{ n.x }}|{{ none['x'] }}",
    "{{ missing + 1 }}", "{{ missing < 1 }}", "{{ -missing }}", "{{ missing == missing }} {{ missing == other }} {{ missing != 1 }} {{ missing == none }}",
    "{% for x in missing %}x{% else %}empty{% endfor %}", "{% for x in none %}{% endfor %}", "{% for x in 5 %}{% endfor %}",
    "{{ ''.__class__ }}|{{ d.__class__ }}|{{ xs.__len__ }}|{{ n.__add__ }}", "{{ ''.__class__.__mro__ }}",
    "{{ missing() }}", "{{ n() }}", "{{ d.k() }}", "{{ d.nosuch() }}",
    # loops and scopes
    "{% set x = 1 %}{% for i in xs %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% for i in xs %}{% if i == 1 %}{% set y = i %}{% endif %}{{ y }};{% endfor %}{{ y }}",
    "{% for i in xs %}{{ n }}{% set n = i %}{{ n }} {% endfor %}{{ n }}",
    "{% set ns = namespace(c=0, l=[]) %}{% for i in xs %}{% set ns.c = ns.c + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.c }}{{ ns.l }}{{ ns.nope }}{{ ns['c'] }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}", "{% set d.x = 1 %}", "{% set missing.x = 1 %}",
    "{% for i in xs %}{% for j in words %}{{ loop.index }}{{ j }}{% if loop.last %}!{% endif %}{% endfor %}{{ loop.index }} {% endfor %}",
    "{% for i in xs %}{% set k = loop.index %}{% for j in words %}{{ k }}{{ j }} {% endfor %}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}", "{% for k in d.keys() %}{{ k }}{% endfor %}{% for v in d.values() %}{{ v }}{% endfor %}",
    "{% for k, v in d | items %}{{ loop.index }}{{ k }}{% endfor %}", "{% for c in s %}[{{ c }}]{% endfor %}",
    "{% for a, b in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }} {% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}",
    "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}", "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in (1, 2) %}{{ x }}{% endfor %}",
    "{% for x in empty %}{{ x }}{% else %}nothing{% endfor %}", "{% for x in xs %}{{ x }}{% else %}nothing{% endfor %}",
    "{% for x in xs if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ' last' if loop.last }} {% endfor %}",
    "{% for x in xs if x > n %}{{ x }}{% else %}none of {{ xs | length }}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %} {% for x in range(5, 1, -2) %}{{ x }}{% endfor %} {% for x in range(2, 2) %}{{ x }}{% else %}-{% endfor %} {{ range(3) | list }} {{ range(4) | length }}",
    "{{ range(0, 10, 0) }}", "{{ range('a') }}", "{% for i in range(100001) %}{% endfor %}",
    "{% for i in xs %}{% if loop.index == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}|{% for i in xs %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% else %}e{% endfor %}",
    "{% for i in xs %}{% for j in xs %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}", "{% break %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}", "{% set a, b = 1 %}", "{% set x %}in{{ n }}{% set y = 5 %}{% endset %}[{{ x }}{{ y }}]{{ x is string }}",
    "{% set x = 'a' %}{% for i in xs %}{% set x %}{{ x }}b{% endset %}{{ x }} {% endfor %}{{ x }}",
    "{% set x = 1 %}{% set x = x + 1 %}{{ x }}", "{% set n = n + 1 %}{{ n }}", "{% set true = 1 %}", "{% set 'a' = 1 %}",
    # macros
    "{% macro m(a, b=2, c='x') %}({{ a }},{{ b }},{{ c }}){% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=9) }}{{ m() }}{{ m(b=n, a=s) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}",
    "{% set g = 5 %}{% macro m() %}{{ g }}{{ n }}{% set g = 6 %}{{ g }}{% endmacro %}{{ m() }}{{ g }}{% set g = 7 %}{{ m() }}",
    "{% macro m() %}{{ i }}{% endmacro %}{% for i in xs %}[{{ m() }}]{% endfor %}",
    "{% macro f(k) %}{% if k > 0 %}{{ k }}{{ f(k - 1) }}{% endif %}{% endmacro %}{{ f(4) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(3) }}", "{% macro m() %} x {% endmacro %}{{ m() | trim }}{{ m() ~ '.' }}{{ m() | length }}",
    "{% if true %}{% macro m() %}q{% endmacro %}{% endif %}{{ m() }}",
    # filters
    "[{{ pad | trim }}] [{{ 'xxaxx' | trim('x') }}] [{{ n | trim }}] {{ s | length }} {{ d | length }} {{ missing | length }} {{ xs | count }}",
    "{{ n | length }}", "{{ none | length }}", "{{ 'Hello World' | upper }} {{ 'HeLLo' | lower }} {{ 'hELLO wORLD' | capitalize }} {{ 'hello wORLD-foo (bar' | title }} {{ s | upper }} {{ n | upper }}",
    "{{ missing | default('x') }} {{ none | default('x') }} {{ none | default('x', true) }} {{ '' | d('y', boolean=true) }} {{ missing | d }}| {{ 0 | default(1) }} {{ missing | default }}",
    "{{ missing.x | default('no') }}", "{{ d.nope.x is defined }}",
    "{{ xs | join }} {{ xs | join('-') }} {{ words | join(d=', ') }} {{ rows | join(',', attribute='n') }} {{ s | join('.') }} {{ [none, true, 1.0] | join(' ') }} {{ d | join }}",
    "{{ xs | first }} {{ xs | last }} {{ empty | first }} {{ empty | last }} {{ s | first }}{{ s | last }} {{ d | first }} {{ d | last }} {{ missing | first }}",
    "{{ (xs | map('string')) | last }}", "{{ 5 | first }}", "{{ s | list }} {{ d | list }} {{ (1, 2) | list }} {{ missing | list }}", "{{ n | list }}",
    "{{ n | string + 'x' }} {{ none | string }} {{ [1] | string }} {{ 1.0 | string | length }}",
    "{{ '42' | int }} {{ ' -7 ' | int }} {{ '4.9' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ 'x' | int(default=6) }} {{ 3.99 | int }} {{ -3.99 | int }} {{ none | int }} {{ true | int }} {{ '1_0' | int }} {{ '1__0' | int }} {{ [] | int }}",
    "{{ missing | int }}", "{{ '1.5' | float }} {{ 'x' | float }} {{ 'x' | float(2) }} {{ 3 | float }} {{ '1e3' | float }} {{ ' inf ' | float }} {{ 'nan' | float }} {{ '-.5' | float }}",
    "{{ -5 | abs }} {{ (-5) | abs }} {{ -2.5 | abs }} {{ 'a' | abs }}", "{{ -5|string }}",
    "{{ 'a-b-c' | replace('-', '+') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'abc' | replace('', '.') }} {{ 5 | replace('5', 'x') }} {{ 'x1' | replace(1, 2) }} {{ s | replace('\u00f6', 'OE') }}",
    "{{ xs | reverse | list }} {{ s | reverse }} {{ (1, 2) | reverse | join }} {{ d | reverse | list }}",
    "{{ rows | map(attribute='n') | list }} {{ rows | map(attribute='on', default='-') | list }} {{ rows | map(attribute='on') | list }} {{ words | map('upper') | join }} {{ xs | map('string') | list }} {{ [' a ', 'b '] | map('trim') | list }} {{ words | map('replace', 'a', 'z') | list }}",
    "{{ rows | selectattr('on') | map(attribute='n') | list }} {{ rows | rejectattr('on') | map(attribute='n') | list }} {{ rows | selectattr('v', 'gt', 1) | map(attribute='n') | list }} {{ rows | selectattr('on', 'defined') | list | length }}",
    "{{ xs | select('odd') | list }} {{ xs | reject('odd') | list }} {{ [0, 1, '', none] | select | list }} {{ xs | select('in', [1, 2]) | list }} {{ [[1], []] | map('length') | list }}",
    "{{ [{'a': {'b': 1}}, {'a': {'b': 2}}] | map(attribute='a.b') | list }} {{ [[1, 2], [3, 4]] | map(attribute='1') | list }}",
    "{% set g = xs | map('string') %}{{ g | join }}{{ g | join }}|", "{{ missing | items | list }}{{ d | items | list | length }}", "{{ xs | items | list }}", "{{ d | items | length }}",
    "{{ xs | nosuchfilter }}", "{{ 'a,b' | upper | lower | replace(',', ';') | length }}", "{{ (xs | first) + 1 }} {{ xs | first + 1 }}", "{{ xs | length > 2 }}{{ not xs | length }}",
    # methods
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('c') }} {{ 'abc'.endswith('b') }} {{ s.startswith('h\u00e9') }} {{ ''.startswith('') }}",
    "{{ 'a b  c '.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ' a b c '.split(none, 1) }} {{ 'a b c'.split(maxsplit=1) }} {{ 'abc'.split('x') }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a--b-c'.split('--') }} {{ 'a\u3000b'.split() }}",
    "{{ 'a'.split('') }}", "{{ 'a,b,c'.rsplit(',', 1) }} {{ 'aaa'.rsplit('aa') }} {{ 'aaaa'.rsplit('aa', 1) }}", "{{ '<think>x</think>\\n\\nyes'.split('</think>')[-1].lstrip('\\n') }} {{ 'a</t>b'.split('</t>')[0].rstrip('\\n').split('<t>')[-1] }}",
    "[{{ pad.strip() }}] [{{ pad.lstrip() }}] [{{ pad.rstrip() }}] [{{ 'xyaxy'.strip('xy') }}] [{{ 'xyaxy'.lstrip('yx') }}] [{{ 'xyaxy'.rstrip('y') }}] [{{ '\u00e9a\u00e9'.strip('\u00e9') }}] [{{ ' a '.strip(none) }}]",
    "{{ 'abc'.upper() }} {{ 'ABC'.lower() }} {{ \"they're bill's UK x1y\".title() }} {{ 'aBC'.capitalize() }} {{ '\u4f60\u597d abc \u00df'[:-1].upper() }} {{ '\u0416\u0438\u0437\u043d\u044c'.upper() }} {{ 'a\u4f60b'.title() }}",
    "{{ 'a-b'.replace('-', '+') }} {{ 'aaa'.replace('a', 'b', 1) }} {{ 'abc'.find('c') }} {{ s.find('w') }} {{ 'abc'.find('x') }} {{ 'banana'.count('an') }} {{ 'abc'.count('') }} {{ ','.join(['a', 'b']) }} {{ ''.join('xyz') }} {{ 'abc'.removeprefix('ab') }} {{ 'abc'.removesuffix('bc') }} {{ 'abc'.removeprefix('x') }}",
    "{{ ','.join([1]) }}", "{{ 'a'.replace(1, 2) }}", "{{ 'a'.startswith(1) }}", "{{ d.get('k') }} {{ d.get('x') }} {{ d.get('x', 5) }} {{ d.get('items') }} {{ d.items() | list | length }} {{ d.keys() | list }} {{ d.values() | first }}",
    "{{ xs.startswith('a') }}", "{{ n.strip() }}", "{{ d.k.strip() }}{{ d['k'].upper() }}{{ d['k']['upper']() }}", "{{ d.items()[0] }}|{{ d.items() | length }}|{{ 'k' in d.keys() }}",
    "{{ dict(a=1, b=n) }}{{ dict({'x': 1}, y=2).y }}{{ {} | length }}", "{{ {[1]: 2} }}", "{{ missing in {1: 2} }} {{ {(1, 2): 3}[(1, 2)] }} {{ {}[(1, [2])] is defined }}", "{{ {'a': 1, 'a': 2} }}{{ {1: 'a', true: 'b', 1.0: 'c'} }}",
    # syntax errors
    "{{ }}", "{{ 1 + }}", "{{ n", "{% if %}", "{% if true %}", "{% endif %}", "{% for x xs %}{% endfor %}", "{{ (1 }}", "{{ 1) }}", "{{ [1, 2 }}", "{{ 'abc }}", "{# abc", "{% nosuch %}", "{{ n | }}", "{{ n is }}", "{{ n. }}", "{{ a b }}", "{% set %}", "{% set x %}", "{{ {1 2} }}", "{{ !n }}", "{{ n $ }}", "{% if true %}{% else %}{% else %}{% endif %}", "{% for x in xs %}{% endif %}", "{% macro %}{% endmacro %}", "{% macro m(a=1, b) %}{% endmacro %}", "{{ n ? 1 : 2 }}", "{{ f(a=1, 2) }}", "{{ 01 }}", "{{ n[1:2:3:4] }}", "{% else %}", "{{ * }}",
]


def render(template, context):
    try:
        return {"rendered": ENV.from_string(template).render(**context)}
    except Exception:
        return {"error": True}


def main():
    path = pathlib.Path(__file__).with_name("template_features.jsonl")
    with path.open("w") as out:
        for templates, context in ((MESSAGE_TEMPLATES, MESSAGES), (SPACE_TEMPLATES, {"n": 7, "xs": [3, 1]}), (DATA_TEMPLATES, DATA)):
            for template in templates:
                words = set(re.findall(r"\w+", template))
                used = {name: value for name, value in context.items() if name in words}
                json.dump({"template": template, "context": used, **render(template, used)}, out)
                out.write("\n")


if __name__ == "__main__":
    main()

#include "tools/qwen/cross_check_against.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <utility>
#include <vector>

#include "core/crosscheck/against.h"
#include "core/error.h"
#include "tools/qwen/command.h"
#include "tools/qwen/cross_check_detail.h"
#include "tools/qwen/divergence_text.h"
#include "tools/qwen/format.h"
#include "tools/qwen/input.h"
#include "tools/qwen/json_input.h"

namespace qwen::cli {
namespace {

using crosscheck::AgainstResult;
using crosscheck::Compared;
using crosscheck::OutsideArray;

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxManifestBytes = std::uint64_t{64} << 20;
// Of a report: different arrays after the first.
constexpr std::size_t kMaxPlaces = 8;

[[noreturn]] void bad_folder(const std::string& message, const std::string& hint,
                             const std::string& file) {
  throw Error({.exit = Exit::kModel,
               .code = "bad_manifest",
               .message = "--against: " + message,
               .hint = hint,
               .file = file});
}

constexpr const char* kManifestHint =
    "it is a JSON object with the token ids of the text: {\"ids\": [785, 6722]}";

struct Manifest {
  std::vector<std::int32_t> ids;
  Json names = Json::object();
};

std::string manifest_path(const std::string& folder) {
  for (const char* name : {"manifest.json", "ids.json"}) {
    const fs::path path = fs::path(folder) / name;
    std::error_code error;
    if (fs::is_regular_file(path, error)) return path.string();
  }
  bad_folder(folder + " has no manifest.json or ids.json", kManifestHint, folder);
}

std::vector<std::int32_t> manifest_ids(const Json& json, std::int64_t n_vocab,
                                       const std::string& path) {
  if (!json.is_object() || !json.contains("ids") || !json["ids"].is_array() ||
      json["ids"].empty()) {
    bad_folder(path + " has no array 'ids'", kManifestHint, path);
  }
  std::vector<std::int32_t> ids;
  for (const Json& id : json["ids"]) {
    if (!id.is_number_integer() || id < 0 || id >= n_vocab) {
      bad_folder(path + ": id " + id.dump() + " is not in the vocabulary of " + thousands(n_vocab) +
                     " tokens",
                 "the arrays are of another model", path);
    }
    ids.push_back(id);
  }
  return ids;
}

Json parse_manifest(const std::string& path) {
  try {
    return parse_bounded_json(read_input(path), path);
  } catch (const Json::exception&) {
    bad_folder(path + " is no JSON", kManifestHint, path);
  }
}

Manifest read_manifest(const std::string& folder, std::int64_t n_vocab) {
  const std::string path = manifest_path(folder);
  std::error_code error;
  if (fs::file_size(path, error) > kMaxManifestBytes || error) {
    bad_folder(path + " cannot be read or has more than " + bytes_text(kMaxManifestBytes),
               kManifestHint, path);
  }
  const Json json = parse_manifest(path);
  Manifest manifest{.ids = manifest_ids(json, n_vocab, path)};
  if (json.contains("names")) manifest.names = json["names"];
  const bool named = manifest.names.is_object() &&
                     std::all_of(manifest.names.begin(), manifest.names.end(),
                                 [](const Json& v) { return v.is_string() || v.is_null(); });
  if (!named) {
    bad_folder(path + ": 'names' is no object of names",
               "{\"names\": {\"theirs\": \"L03.q_proj\", \"left_out\": null}}", path);
  }
  return manifest;
}

// "L03.q_proj" -> ("q_proj", 3), "embed" -> ("embed", -1)
std::pair<std::string, int> split_name(const std::string& name) {
  const std::size_t dot = name.find('.');
  constexpr std::size_t kMaxDigits = 4;
  const bool layered = name.starts_with("L") && dot != std::string::npos && dot > 1 &&
                       dot <= 1 + kMaxDigits && name.find_first_not_of("0123456789", 1) == dot;
  if (!layered) return {name, -1};
  return {name.substr(dot + 1), std::stoi(name.substr(1, dot - 1))};
}

struct Folder {
  std::vector<OutsideArray> arrays;
  std::vector<std::string> left_out;
};

Folder read_folder(const std::string& folder, const Manifest& manifest) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".npy") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& entry : manifest.names.items()) {
    const std::string& name = entry.key();
    const bool is_there = std::any_of(files.begin(), files.end(),
                                      [&](const fs::path& file) { return file.stem() == name; });
    if (!is_there) {
      bad_folder(folder + " has no " + name + ".npy, which its manifest names",
                 "every name in 'names' is that of an array", folder);
    }
  }
  Folder found;
  for (const fs::path& file : files) {
    const std::string stem = file.stem().string();
    const Json name = manifest.names.contains(stem) ? manifest.names[stem] : Json(stem);
    const auto [tap, layer] = name.is_null() ? std::pair(std::string(), -1) : split_name(name);
    if (name.is_null() || crosscheck::is_inside_op(tap)) {
      found.left_out.push_back(stem);
      continue;
    }
    found.arrays.push_back({stem, tap, layer, crosscheck::read_npy(file.string())});
  }
  if (found.arrays.empty()) {
    bad_folder(folder + " has no arrays to compare", "files such as L03.q_proj.npy", folder);
  }
  return found;
}

const Compared* first_difference(const AgainstResult& result) {
  const auto first = std::find_if(result.compared.begin(), result.compared.end(),
                                  [](const Compared& c) { return c.differs(); });
  return first == result.compared.end() ? nullptr : &*first;
}

// A difference in a run whose own rounding may exceed the bound proves nothing.
std::string verdict(const AgainstResult& result) {
  if (first_difference(result) == nullptr) return "agree";
  return result.is_f32 ? "diverge" : "cannot_tell";
}

std::string scientific(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", v);
  return text;
}

std::string difference_text(const AgainstResult& result) {
  const Compared& d = *first_difference(result);
  std::string coords;
  for (const std::int64_t c : d.first.coords) {
    coords += (coords.empty() ? "" : ", ") + std::to_string(c);
  }
  std::string out = "     first: " + d.name + " at token " + std::to_string(d.first.token) + " (" +
                    coords + ")   got " + scientific(d.first.got) + "  outside " +
                    scientific(d.first.outside) + "\n     largest |difference| " +
                    scientific(d.error) + " at a largest value of " + scientific(d.largest) + " (" +
                    scientific(d.share()) + ", allowed " +
                    scientific(crosscheck::kOutsideTolerance) + ")\n";
  std::size_t shown = 0;
  for (const Compared& c : result.compared) {
    if (!c.differs() || &c == &d || shown++ == kMaxPlaces) continue;
    out += (shown == 1 ? "     also " : ", ") + c.name;
    if (shown == kMaxPlaces) break;
  }
  return shown > 0 ? out + "\n" : out;
}

std::string text(const std::string& names, const AgainstResult& result, const Folder& folder,
                 std::size_t n_tokens) {
  const std::vector<Compared>& all = result.compared;
  const auto n =
      std::count_if(all.begin(), all.end(), [](const Compared& c) { return c.differs(); });
  const Compared& worst =
      *std::max_element(all.begin(), all.end(),
                        [](const Compared& a, const Compared& b) { return a.share() < b.share(); });
  const std::string arrays = thousands(static_cast<std::int64_t>(all.size())) + " arrays";
  std::string out = verdict(result) == "agree"     ? "PASS "
                    : verdict(result) == "diverge" ? "FAIL "
                                                   : "CANNOT TELL ";
  out += names + ": " + (n > 0 ? thousands(n) + " of " : "") + arrays + (n > 0 ? " differ" : "") +
         ", " + std::to_string(n_tokens) + " tokens\n";
  if (n == 0) {
    out += "     worst " + scientific(worst.share()) + " of its token's largest value, at " +
           worst.name + "\n";
  } else {
    out += difference_text(result);
  }
  if (verdict(result) == "cannot_tell") {
    out += "     this run rounds to fewer bits than FP32: --exact --kv f32 does not\n";
  }
  if (!folder.left_out.empty()) {
    out += "     not compared: ";
    for (const std::string& name : folder.left_out) {
      out += (&name == folder.left_out.data() ? "" : ", ") + name;
    }
    out += "\n";
  }
  return out;
}

Json compared_json(const Compared& c) {
  return {{"name", c.name},
          {"op", c.tap.name},
          {"layer", c.tap.layer < 0 ? Json(nullptr) : Json(c.tap.layer)},
          {"shape", c.shape},
          {"largest", c.largest},
          {"error", number(c.error)},
          {"relative", number(c.share())},
          {"differs", c.differs()}};
}

Json document(const AgainstResult& result, const Folder& folder, std::size_t n_tokens) {
  Json compared = Json::array();
  for (const Compared& c : result.compared) compared.push_back(compared_json(c));
  Json first = nullptr;
  if (const Compared* d = first_difference(result)) {
    first = compared_json(*d);
    first["token"] = d->first.token;
    first["coords"] = d->first.coords;
    first["got"] = number(d->first.got);
    first["outside"] = number(d->first.outside);
  }
  return {{"schema", 1},          {"verdict", verdict(result)},
          {"tokens", n_tokens},   {"tolerance", crosscheck::kOutsideTolerance},
          {"f32", result.is_f32}, {"first_difference", first},
          {"compared", compared}, {"not_compared", folder.left_out}};
}

}  // namespace

void run_against(Console& console, const OpenedModel& opened, Engine& engine,
                 const std::string& folder, bool json) {
  const Manifest manifest = read_manifest(folder, engine.shape().n_vocab);
  const Folder found = read_folder(folder, manifest);
  const AgainstResult result =
      crosscheck::against(engine.model(), engine.backend(), found.arrays,
                          {.ids = manifest.ids, .kv_dtype = engine.kv_dtype()});
  if (json) {
    Json out = document(result, found, manifest.ids.size());
    out["model"] = opened.description();
    out["device"] = engine.description();
    out["against"] = folder;
    console.document(out);
  } else {
    console.write(
        text(engine.device().kind + " against " + folder, result, found, manifest.ids.size()));
  }
  if (first_difference(result) != nullptr) throw Finished{Exit::kFailed};
}

}  // namespace qwen::cli

#include "tools/qwen/bundle_folder.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "core/crosscheck/npy.h"
#include "core/crosscheck/verify_script.h"
#include "tools/qwen/bundle_json.h"
#include "tools/qwen/input.h"
#include "tools/qwen/json_input.h"
#include "tools/qwen/version.h"

namespace qwen::cli {
namespace {

using crosscheck::Bundle;
using crosscheck::Divergence;
using crosscheck::is_bit_exact;
using crosscheck::NpyArray;
using crosscheck::to_npy;

constexpr std::uint64_t kMaxFileBytes = 16u << 20;
constexpr const char* kDescription = "contract.json";

std::string npy(const std::string& folder, const std::string& name) {
  return folder + "/" + name + ".npy";
}

// Values of a type that NumPy does not have are kept decoded as well.
bool is_blocks(const Tensor& t) {
  return info(t.dtype).decode_block != nullptr && t.dtype != DType::kF32 && t.dtype != DType::kF16;
}

Json describe(const Tensor& t) {
  return {{"dtype", std::string(info(t.dtype).name)},
          {"shape", std::vector<std::int64_t>(t.dims().begin(), t.dims().end())}};
}

// ---- Writing

class Writer {
 public:
  Writer(std::string folder, const Bundle& bundle) : folder_(std::move(folder)), bundle_(bundle) {}

  void write(const Origin& origin) {
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    Json json = {{"schema", 1},
                 {"op", std::string(name(bundle_.op))},
                 {"tap", std::string(bundle_.divergence.tap.name)},
                 {"layer", bundle_.divergence.tap.layer},
                 {"divergence", kept_divergence_json(bundle_.divergence)},
                 {"fields", fields_json(bundle_.op)},
                 {"contracts", Json::array()}};
    for (const Contract& c : bundle_.contracts) json["contracts"].push_back(contract_json(c));
    write_operands(json);
    json["rows"] = bundle_.rows;
    json["columns"] = bundle_.columns;
    json["model"] = origin.model;
    json["device"] = origin.device;
    json["oracle"] = origin.oracle;
    json["version"] = version();
    json["files"] = std::move(files_);
    write_text(kDescription, json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
    write_text("verify.py", crosscheck::verify_script());
  }

 private:
  void write_operands(Json& json) {
    json["inputs"] = Json::object();
    json["outputs"] = Json::object();
    Op op = bundle_.op;
    std::size_t output = 0;
    for (const Operand& operand : operands(op)) {
      const std::string operand_name(operand.name);
      if (operand.access != Access::kWrite) {
        json["inputs"][operand_name] = describe(*operand.tensor);
        write_input(operand_name, operand.access, *operand.tensor);
      }
      if (writes(operand.access)) {
        json["outputs"][operand_name] = describe(*operand.tensor);
        json["outputs"][operand_name]["failed"] = bundle_.judgements[output].n_failed;
        write_output(operand_name, output++);
      }
    }
  }

  void write_input(const std::string& operand, Access access, const Tensor& t) {
    const bool in_place = access == Access::kReadWrite;
    add(operand, to_npy(t),
        is_blocks(t) ? "input, the bytes of its blocks"
        : in_place   ? "input, as it was before the op"
                     : "input");
    if (!is_blocks(t)) return;
    add_decoded(operand + "_f32", decode, t, "input, decoded");
    const auto has_minima = [](const Contract& c) { return c.separate_minima; };
    if (std::any_of(bundle_.contracts.begin(), bundle_.contracts.end(), has_minima)) {
      add_decoded(operand + "_min", decode_minima, t, "the minima that are in the decoded values");
    }
  }

  template <class Decode>
  void add_decoded(const std::string& name, Decode decode_row, const Tensor& t, const char* about) {
    std::vector<float> values(t.size());
    for (std::int64_t r = 0; r < t.rows(); ++r) {
      decode_row(t.dtype, t.row(r), t.cols(), values.data() + r * t.cols());
    }
    add(name, to_npy(Tensor(values.data(), DType::kF32, t.dims())), about);
  }

  void write_output(const std::string& operand, std::size_t i) {
    add("got_" + operand, to_npy(bundle_.got[i]), "what the device computed");
    add("expected_" + operand, to_npy(bundle_.expected[i]), "what the reference computes");
    if (!bundle_.tolerances.empty()) {
      add("tolerance_" + operand, to_npy(bundle_.tolerances[i]),
          "by how much each element may differ: the sum over the contracts, flat");
    }
    const std::vector<std::int64_t>& listed = bundle_.judgements[i].failed;
    std::vector<std::int32_t> failed(listed.begin(), listed.end());
    add("failed_" + operand,
        to_npy(Tensor(failed.data(), DType::kI32, {static_cast<std::int64_t>(failed.size())})),
        "indices of the elements that differ by more, flat; the first 4096");
  }

  void add(const std::string& tensor, const NpyArray& array, const char* meaning) {
    write_npy(npy(folder_, tensor), array);
    files_[tensor + ".npy"] = meaning;
  }

  void write_text(const std::string& file, std::string_view text) const {
    const std::string path = folder_ + "/" + file;
    std::ofstream out(path, std::ios::binary);
    out << text;
    out.close();
    if (!out) throw Error({.code = "cannot_write", .message = "cannot write " + path});
  }

  std::string folder_;
  const Bundle& bundle_;
  Json files_ = Json::object();
};

// ---- Reading

[[noreturn]] void damaged(const std::string& folder, const std::string& what) {
  throw Error({.exit = Exit::kModel,
               .code = "damaged_bundle",
               .message = folder + " is no complete bundle: " + what,
               .hint = "qwen cross-check MODEL --bundle DIR writes it anew",
               .file = folder});
}

class Reader {
 public:
  explicit Reader(std::string folder) : folder_(std::move(folder)) {}

  StoredBundle read() {
    const Json json = description();
    StoredBundle stored;
    bundle_ = &stored.bundle;
    bundle_->op = op_named(json.at("op"));
    bundle_->divergence = read_divergence(json.at("divergence"));
    bundle_->divergence.tap = {kept_text(json.at("tap")), json.at("layer")};
    bundle_->divergence.output = kept_text(json.at("divergence").at("output"));
    read_fields(json.at("fields"), bundle_->op);
    for (const Json& c : json.at("contracts")) bundle_->contracts.push_back(read_contract(c));
    for (const Operand& operand : operands(bundle_->op)) read_operand(json, operand);
    bundle_->rows = json.at("rows").get<std::vector<std::int64_t>>();
    bundle_->columns = json.at("columns").get<std::vector<std::int64_t>>();
    stored.origin = {json.at("model"), json.at("device"), json.at("oracle")};
    stored.origin.device["kind"] = printable(json.at("device").at("kind"));
    return stored;
  }

 private:
  Json description() const {
    const std::string path = folder_ + "/" + kDescription;
    std::error_code error;
    const std::uint64_t bytes = std::filesystem::file_size(path, error);
    if (error) damaged(folder_, std::string(kDescription) + " cannot be read");
    if (bytes > kMaxFileBytes) damaged(folder_, std::string(kDescription) + " is too large");
    constexpr int kMaxDepth = 8;
    return parse_bounded_json(read_input(path), kDescription, kMaxDepth);
  }

  // Lives as long as the bundle.
  std::string_view kept_text(const Json& json) {
    const std::string text = printable(json);
    const Tensor t = bundle_->memory.take(DType::kI8, {static_cast<std::int64_t>(text.size())});
    std::memcpy(t.data, text.data(), text.size());
    return {t.as<char>(), text.size()};
  }

  // A tensor in the bundle's memory, from the file of that name.
  Tensor read_tensor(const std::string& file, DType dtype, const std::vector<std::int64_t>& dims) {
    const auto within = [](std::int64_t n) {
      return n > 0 && n <= static_cast<std::int64_t>(kMaxFileBytes);
    };
    const bool possible = !dims.empty() && dims.size() <= Tensor::kMaxRank &&
                          std::all_of(dims.begin(), dims.end(), within) &&
                          dims.back() % info(dtype).block_size == 0;
    if (!possible) damaged(folder_, "no tensor can have the shape of " + file);
    const NpyArray array = crosscheck::read_npy(npy(folder_, file), kMaxFileBytes);
    NpyArray wanted = to_npy(Tensor(nullptr, dtype, dims).slice(0, 0));
    wanted.shape[0] = dims[0];
    if (array.type != wanted.type || array.shape != wanted.shape) {
      damaged(folder_, file + ".npy has the shape " + shape_string(array.shape) +
                           " or another type, expected " + shape_string(wanted.shape));
    }
    const Tensor t = bundle_->memory.take(dtype, dims);
    std::memcpy(t.data, array.bytes.data(), t.bytes());
    return t;
  }

  void read_operand(const Json& json, const Operand& operand) {
    const std::string operand_name(operand.name);
    const bool is_input = operand.access != Access::kWrite;
    const Json& how = json.at(is_input ? "inputs" : "outputs").at(operand_name);
    const DType dtype = dtype_named(how.at("dtype"));
    const auto dims = how.at("shape").get<std::vector<std::int64_t>>();
    if (is_input) *operand.tensor = read_tensor(operand_name, dtype, dims);
    if (!writes(operand.access)) return;
    bundle_->got.push_back(read_tensor("got_" + operand_name, dtype, dims));
    if (!is_input) *operand.tensor = bundle_->memory.copy(bundle_->got.back());
    bundle_->expected.push_back(read_tensor("expected_" + operand_name, dtype, dims));
    read_verdict(operand, json.at("outputs").at(operand_name).at("failed"));
  }

  void read_verdict(const Operand& operand, std::int64_t n_failed) {
    const std::string operand_name(operand.name);
    if (!is_bit_exact(bundle_->op)) {
      const NpyArray array =
          crosscheck::read_npy(npy(folder_, "tolerance_" + operand_name), kMaxFileBytes);
      if (array.type != crosscheck::NpyType::kF8 || array.size() != operand.tensor->size()) {
        damaged(folder_, "tolerance_" + operand_name + ".npy does not fit its output");
      }
      bundle_->tolerances.emplace_back(static_cast<std::size_t>(array.size()));
      std::memcpy(bundle_->tolerances.back().data(), array.bytes.data(), array.bytes.size());
    }
    const NpyArray array =
        crosscheck::read_npy(npy(folder_, "failed_" + operand_name), kMaxFileBytes);
    if (array.type != crosscheck::NpyType::kI4 || array.shape.size() != 1) {
      damaged(folder_, "failed_" + operand_name + ".npy is no list of elements");
    }
    std::vector<std::int32_t> listed(static_cast<std::size_t>(array.size()));
    std::memcpy(listed.data(), array.bytes.data(), array.bytes.size());
    bundle_->judgements.push_back({.output = operand.name,
                                   .n_elements = operand.tensor->size(),
                                   .n_failed = n_failed,
                                   .failed = {listed.begin(), listed.end()}});
  }

  DType dtype_named(const std::string& wanted) const {
    constexpr std::uint32_t kIds = 256;  // DType is a byte
    for (std::uint32_t id = 0; id < kIds; ++id) {
      const DTypeInfo* known = find_dtype(id);
      if (known != nullptr && known->name == wanted) return known->dtype;
    }
    damaged(folder_, "the type '" + wanted + "' is not known");
  }

  std::string folder_;
  Bundle* bundle_ = nullptr;
};

}  // namespace

std::string bundle_name(const Divergence& divergence) {
  char place[48];
  const auto token = static_cast<long long>(divergence.token);
  if (divergence.tap.layer < 0) {
    std::snprintf(place, sizeof place, "xc-%04lld-", token);
  } else {
    std::snprintf(place, sizeof place, "xc-%04lld-%02d-", token, divergence.tap.layer);
  }
  return place + std::string(divergence.tap.name);
}

void write_bundle(const std::string& folder, const Bundle& bundle, const Origin& origin) {
  Writer(folder, bundle).write(origin);
}

StoredBundle read_bundle(const std::string& folder) {
  try {
    return Reader(folder).read();
  } catch (const Json::exception& error) {
    damaged(folder, error.what());
  } catch (const Error& error) {
    if (error.info().exit == Exit::kModel) throw;
    damaged(folder, error.what());
  }
}

void judge_kept(const std::string& folder, Backend& reference, Bundle& bundle) {
  try {
    judge_by(reference, bundle);
  } catch (const Error& error) {
    damaged(folder, error.what());
  }
}

}  // namespace qwen::cli

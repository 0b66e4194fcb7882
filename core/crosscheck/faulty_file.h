// A model file that is read wrongly: what a faulty loader would make of it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/crosscheck/scratch.h"
#include "core/model_file.h"

namespace qwen::crosscheck {

struct LoadFault {
  enum class Kind {
    kNone,
    kZeroed,    // taken for corrupt, and filled with zeros
    kOffset,    // read from 32 bytes further on
    kOther,     // the tensor of this type and shape that was taken before
    kShuffled,  // the halves of each row in the wrong order
    kNumber,    // the key has another value
  };
  Kind kind = Kind::kNone;
  // Tensors whose name ends so are wrong; or the key that is.
  std::string_view name = {};
  float value = 0;
  // How what the attestation calls it must begin.
  std::string_view cause = {};
};

class FaultyFile : public ModelFile {
 public:
  // `file` must outlive it.
  FaultyFile(ModelFile& file, const LoadFault& fault) : file_(file), fault_(fault) {}

  std::optional<std::uint32_t> find_u32(std::string_view key) const override {
    return file_.find_u32(key);
  }
  std::optional<float> find_f32(std::string_view key) const override;
  std::optional<std::string> find_string(std::string_view key) const override {
    return file_.find_string(key);
  }
  bool has_tensor(std::string_view name) const override { return file_.has_tensor(name); }
  std::span<const std::int64_t> tensor_shape(std::string_view name) const override {
    return file_.tensor_shape(name);
  }
  Tensor take(std::string_view name, std::initializer_list<std::int64_t> shape) override;
  void check_all_taken() const override { file_.check_all_taken(); }
  void check_unchanged() const override { file_.check_unchanged(); }
  // Weights and values handed out wrongly.
  int n_wrong() const { return n_wrong_; }

 private:
  Tensor wrong(const Tensor& right);

  ModelFile& file_;
  LoadFault fault_;
  mutable int n_wrong_ = 0;
  std::vector<Tensor> taken_;
  Scratch memory_;
};

}  // namespace qwen::crosscheck

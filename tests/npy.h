// Reads NumPy's .npy files of little-endian float32 in C order (format 1.0; NEP 1).
#pragma once

#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace qwen::testing {

inline std::vector<float> read_npy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (bytes.size() < 10 || bytes.compare(0, 6, "\x93NUMPY") != 0 || bytes[6] != 1) {
    throw std::runtime_error(path + " is no .npy file of format 1");
  }
  const std::size_t header =
      static_cast<unsigned char>(bytes[8]) + 256 * static_cast<unsigned char>(bytes[9]);
  const std::string text = bytes.substr(10, header);
  if (text.find("'<f4'") == std::string::npos ||
      text.find("'fortran_order': False") == std::string::npos) {
    throw std::runtime_error(path + " does not hold float32 in C order");
  }
  std::vector<float> values((bytes.size() - 10 - header) / sizeof(float));
  std::copy_n(bytes.data() + 10 + header, values.size() * sizeof(float),
              reinterpret_cast<char*>(values.data()));
  return values;
}

}  // namespace qwen::testing

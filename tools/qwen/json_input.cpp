#include "tools/qwen/json_input.h"

#include <cstdint>
#include <vector>

#include "tools/qwen/usage_error.h"

namespace qwen::cli {
namespace {

using Json = nlohmann::ordered_json;

// Reads a text once and keeps nothing of it but where it is.
class Bounds : public nlohmann::json_sax<Json> {
 public:
  Bounds(const std::string& source, int max_depth) : source_(source), max_depth_(max_depth) {}

  bool start_object(std::size_t) override { return open(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string&) override {
    if (++n_keys_.back() > kMaxJsonKeys) {
      usage_error(source_ + ": a JSON object of more than " + std::to_string(kMaxJsonKeys) +
                  " keys");
    }
    return true;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(std::int64_t) override { return true; }
  bool number_unsigned(std::uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(Json::binary_t&) override { return true; }
  // What is wrong is said by parse().
  bool parse_error(std::size_t, const std::string&, const Json::exception&) override {
    return false;
  }

 private:
  bool open() {
    if (static_cast<int>(n_keys_.size()) == max_depth_) {
      usage_error(source_ + ": JSON deeper than " + std::to_string(max_depth_) + " levels");
    }
    n_keys_.push_back(0);
    return true;
  }
  bool close() {
    n_keys_.pop_back();
    return true;
  }

  const std::string& source_;
  int max_depth_;
  std::vector<std::size_t> n_keys_;  // so far, of each open list (none) and object
};

Json parse(const std::string& text, const std::string& source) {
  try {
    return parse_bounded_json(text, source);
  } catch (const Json::parse_error& error) {
    usage_error(source + " is no valid JSON: byte " + std::to_string(error.byte));
  } catch (const Json::out_of_range&) {  // 1e999; the library says nothing of its place
    usage_error(source + " has a number that is too large for a 64-bit float");
  }
}

}  // namespace

// Two passes: a callback of parse() could check the bounds in one, but then the library looks
// through a whole list at the end of each object in it.
Json parse_bounded_json(const std::string& text, const std::string& source, int max_depth) {
  Bounds bounds(source, max_depth);
  Json::sax_parse(text, &bounds);
  return Json::parse(text);
}

Json parse_json_list(const std::string& text, const std::string& source, const std::string& what) {
  Json json = parse(text, source);
  if (!json.is_array()) {
    usage_error(source + ": expected a list of " + what + ", got " + json.type_name());
  }
  return json;
}

Json parse_json_object(const std::string& text, const std::string& source) {
  Json json = parse(text, source);
  if (!json.is_object()) {
    usage_error(source + ": expected a JSON object, got " + json.type_name());
  }
  return json;
}

}  // namespace qwen::cli

// Values as text: as Python's str(), repr() and json.dumps() write them.
#pragma once

#include <optional>
#include <string>

#include "core/chat_template/value.h"

namespace qwen::jinja {

std::string int_text(Int value);
// repr(float): the shortest digits that give the value back, exponent below 1e-4 and from 1e16.
std::string float_text(double value);

// str(): a string keeps its provenance, everything else counts as input. Fails for what has no
// useful text, such as functions.
TextPtr to_text(Guard& guard, const Value& value);

// json.dumps
struct JsonStyle {
  std::optional<std::string> indent;  // of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ensure_ascii = false;
  bool sort_keys = false;
};
std::string to_json(Guard& guard, const Value& value, const JsonStyle& style);

}  // namespace qwen::jinja

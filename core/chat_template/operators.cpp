#include "core/chat_template/operators.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/chat_template/text_ops.h"

namespace qwen::jinja {

namespace {

const char* symbol(Op op) {
  switch (op) {
    case Op::kAdd:
      return "+";
    case Op::kSubtract:
      return "-";
    case Op::kMultiply:
      return "*";
    case Op::kDivide:
      return "/";
    case Op::kFloorDivide:
      return "//";
    case Op::kModulo:
      return "%";
    case Op::kPower:
      return "**";
    case Op::kLess:
      return "<";
    case Op::kLessEqual:
      return "<=";
    case Op::kGreater:
      return ">";
    case Op::kGreaterEqual:
      return ">=";
    default:
      return "in";
  }
}

[[noreturn]] void fail_operands(Guard& guard, Op op, const Value& a, const Value& b) {
  if (a.is_undefined()) fail_undefined(guard, a);
  if (b.is_undefined()) fail_undefined(guard, b);
  guard.fail("unsupported operand types for " + std::string(symbol(op)) + ": '" + type_name(a) +
             "' and '" + type_name(b) + "'");
}

Int power(Guard& guard, Int base, Int exponent) {
  Int result = 1;
  bool overflow = false;
  while (exponent > 0) {
    if (exponent & 1) overflow |= __builtin_mul_overflow(result, base, &result);
    exponent >>= 1;
    if (exponent > 0) overflow |= __builtin_mul_overflow(base, base, &base);
    if (overflow) guard.unsupported("an integer of more than 127 bits");
  }
  return result;
}

Value int_arithmetic(Guard& guard, Op op, Int a, Int b) {
  Int result = 0;
  bool overflow = false;
  switch (op) {
    case Op::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Op::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Op::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Op::kPower:
      if (b < 0) {
        if (a == 0) guard.fail("0 cannot be raised to a negative power");
        return std::pow(static_cast<double>(a), static_cast<double>(b));
      }
      return power(guard, a, b);
    default: {  // the divisions
      if (b == 0) guard.fail("division by zero");
      if (op == Op::kDivide) return static_cast<double>(a) / static_cast<double>(b);
      if (b == -1) {  // the one quotient that can overflow
        overflow = op == Op::kFloorDivide && __builtin_sub_overflow(Int{0}, a, &result);
        break;
      }
      const Int quotient = a / b;
      const Int remainder = a % b;
      const bool down = remainder != 0 && (remainder < 0) != (b < 0);
      result = op == Op::kFloorDivide ? quotient - down : remainder + (down ? b : 0);
    }
  }
  if (overflow) guard.unsupported("an integer of more than 127 bits");
  return result;
}

// CPython's float_divmod
double floor_modulo(double a, double b, double& quotient) {
  double mod = std::fmod(a, b);
  double div = (a - mod) / b;
  if (mod != 0) {
    if ((b < 0) != (mod < 0)) {
      mod += b;
      div -= 1.0;
    }
  } else {
    mod = std::copysign(0.0, b);
  }
  if (div != 0) {
    quotient = std::floor(div);
    if (div - quotient > 0.5) quotient += 1.0;
  } else {
    quotient = std::copysign(0.0, a / b);
  }
  return mod;
}

Value float_arithmetic(Guard& guard, Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return a + b;
    case Op::kSubtract:
      return a - b;
    case Op::kMultiply:
      return a * b;
    case Op::kPower: {
      if (a == 0 && b < 0) guard.fail("0.0 cannot be raised to a negative power");
      if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) {
        guard.unsupported("complex numbers");
      }
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
        guard.fail("numerical result out of range");
      }
      return result;
    }
    default: {
      if (b == 0) guard.fail("float division by zero");
      if (op == Op::kDivide) return a / b;
      double quotient = 0;
      const double mod = floor_modulo(a, b, quotient);
      return op == Op::kModulo ? mod : quotient;
    }
  }
}

Value repeat(Guard& guard, const Value& value, Int times) {
  const Text* text = value.text();
  const std::size_t size = text ? text->size() : value.sequence()->items.size();
  if (times < 0 || size == 0) times = 0;
  constexpr Int kMax = std::numeric_limits<std::uint32_t>::max();
  const auto n = static_cast<std::size_t>(std::min(times, kMax));
  if (text) {
    guard.check_text(n * size);  // before the work
    guard.charge(n * (size / 16 + text->runs().size()));
    Text out;
    for (std::size_t i = 0; i < n; ++i) out.append(*text);
    return make_text(guard, std::move(out));
  }
  guard.charge(n * size);
  std::vector<Value> items;
  for (std::size_t i = 0; i < n; ++i) {
    items.insert(items.end(), value.sequence()->items.begin(), value.sequence()->items.end());
  }
  return make_sequence(guard, std::move(items), value.sequence()->kind);
}

bool is_repeatable(const Value& value) {
  const Sequence* s = value.sequence();
  return value.text() || (s && s->kind <= SequenceKind::kTuple);
}

// -1, 0 or 1; 2 if the numbers are unordered (nan).
template <class T>
int order(const T& a, const T& b) {
  if (a < b) return -1;
  if (a > b) return 1;
  return a == b ? 0 : 2;
}

int order_values(Guard& guard, Op op, const Value& a, const Value& b) {
  guard.charge(1);
  Int storage_a = 0;
  Int storage_b = 0;
  const Int* int_a = as_int(a, storage_a);
  const Int* int_b = as_int(b, storage_b);
  if (int_a && int_b) return order(*int_a, *int_b);
  double number_a = 0;
  double number_b = 0;
  if (as_number(a, number_a) && as_number(b, number_b)) return order(number_a, number_b);
  if (a.text() && b.text()) {  // UTF-8 sorts as its code points do
    guard.charge_bytes(std::min(a.text()->size(), b.text()->size()));
    return order(a.text()->bytes(), b.text()->bytes());
  }
  const Sequence* s = a.sequence();
  const Sequence* t = b.sequence();
  if (s && t && s->kind == t->kind && s->kind <= SequenceKind::kTuple) {
    const std::size_t n = std::min(s->items.size(), t->items.size());
    for (std::size_t i = 0; i < n; ++i) {
      if (!equals(guard, s->items[i], t->items[i])) {
        return order_values(guard, op, s->items[i], t->items[i]);
      }
    }
    return order(s->items.size(), t->items.size());
  }
  fail_operands(guard, op, a, b);
}

}  // namespace

void fail_undefined(Guard& guard, const Value& value) {
  const std::string* name = value.as<Undefined>()->name;
  guard.fail(name ? "'" + *name + "' is undefined" : "the value is undefined");
}

Value arithmetic(Guard& guard, Op op, const Value& a, const Value& b) {
  Int storage_a = 0;
  Int storage_b = 0;
  const Int* int_a = as_int(a, storage_a);
  const Int* int_b = as_int(b, storage_b);
  if (int_a && int_b) return int_arithmetic(guard, op, *int_a, *int_b);
  double number_a = 0;
  double number_b = 0;
  if (as_number(a, number_a) && as_number(b, number_b)) {
    return float_arithmetic(guard, op, number_a, number_b);
  }
  if (op == Op::kMultiply && int_b && is_repeatable(a)) return repeat(guard, a, *int_b);
  if (op == Op::kMultiply && int_a && is_repeatable(b)) return repeat(guard, b, *int_a);
  if (op == Op::kModulo && a.text()) guard.unsupported("formatting with %");
  if (op == Op::kAdd && a.text() && b.text()) {
    guard.check_text(a.text()->size() + b.text()->size());
    Text sum = *a.text();
    sum.append(*b.text());
    return make_text(guard, std::move(sum));
  }
  const Sequence* s = a.sequence();
  const Sequence* t = b.sequence();
  if (op == Op::kAdd && s && t && s->kind == t->kind && s->kind <= SequenceKind::kTuple) {
    guard.charge(s->items.size() + t->items.size());
    std::vector<Value> items = s->items;
    items.insert(items.end(), t->items.begin(), t->items.end());
    return make_sequence(guard, std::move(items), s->kind);
  }
  fail_operands(guard, op, a, b);
}

Value negate(Guard& guard, const Value& value) {
  Int storage = 0;
  if (const double* d = value.as<double>()) return -*d;
  if (const Int* i = as_int(value, storage)) {
    return int_arithmetic(guard, Op::kSubtract, 0, *i);
  }
  if (value.is_undefined()) fail_undefined(guard, value);
  guard.fail("bad operand type for unary -: '" + type_name(value) + "'");
}

Value positive(Guard& guard, const Value& value) {
  Int storage = 0;
  if (value.is<double>()) return value;
  if (const Int* i = as_int(value, storage)) return *i;
  if (value.is_undefined()) fail_undefined(guard, value);
  guard.fail("bad operand type for unary +: '" + type_name(value) + "'");
}

bool compare(Guard& guard, Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::kEqual:
      return equals(guard, a, b);
    case Op::kNotEqual:
      return !equals(guard, a, b);
    case Op::kIn:
      return contains(guard, b, a);
    case Op::kNotIn:
      return !contains(guard, b, a);
    case Op::kLess:
      return order_values(guard, op, a, b) == -1;
    case Op::kGreater:
      return order_values(guard, op, a, b) == 1;
    case Op::kLessEqual: {
      const int o = order_values(guard, op, a, b);
      return o == -1 || o == 0;
    }
    default: {
      const int o = order_values(guard, op, a, b);
      return o == 0 || o == 1;
    }
  }
}

bool contains(Guard& guard, const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (!item.text()) {
      guard.fail("'in <string>' requires string as left operand, not " + type_name(item));
    }
    guard.charge_bytes(text->size() + item.text()->size());
    return find_bytes(text->bytes(), item.text()->bytes()) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    if (!is_hashable(guard, item)) guard.fail("unhashable type: '" + type_name(item) + "'");
    return find_key(guard, *dict, item) != nullptr;
  }
  for (const Value& element : Elements(iterate(guard, container))) {
    if (equals(guard, element, item)) return true;
  }
  return false;
}

}  // namespace qwen::jinja

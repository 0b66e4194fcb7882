// What the contract.json of a repro bundle says of an op, a contract and a divergence, both ways.
// Reading throws Json::exception for what is missing or of another type.
#pragma once

#include <string>

#include "core/crosscheck/shadow.h"
#include "tools/qwen/console.h"

namespace qwen::cli {

// {"eps"}, {"scale","decode"} or {}: what is not a tensor.
Json fields_json(const Op& op);
void read_fields(const Json& fields, Op& op);

// An op of that kind ("Gemm") without tensors. Throws Error if there is none.
Op op_named(const std::string& wanted);

Json contract_json(const Contract& c);
Contract read_contract(const Json& json);

// What is read is printed: control characters become question marks.
std::string printable(std::string text);

// {"output","token","seq","coords","failed","of","pattern","cause"}: without tap and element. What
// is read has no output: its name must outlive it.
Json kept_divergence_json(const crosscheck::Divergence& d);
crosscheck::Divergence read_divergence(const Json& json);

}  // namespace qwen::cli

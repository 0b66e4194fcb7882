// Whether the numbers that the ops work with are those of the file's metadata. Both sides of a
// comparison take them from the file by the same code (core/models), so comparing the sides cannot
// show that it is wrong: here the metadata are read and computed with once more.
#pragma once

#include <vector>

#include "core/crosscheck/attest.h"
#include "core/model_file.h"

namespace qwen::crosscheck {

// `plan`: a recorded step, its constants in host memory. Compares the norms' eps, the table of
// rotary frequencies, the scale of attention, and the numbers of heads and widths, of the first op
// of each kind that differs.
std::vector<Finding> attest_file(const ModelFile& file, const Plan& plan);

}  // namespace qwen::crosscheck

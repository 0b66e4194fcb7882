// From messages to the ids of a prompt.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/chat_template/chat_template.h"
#include "core/tokenizer/tokenizer.h"
#include "tools/qwen/opened_model.h"

namespace qwen::cli {

// The ids of rendered text. Control and user-defined tokens count as such where they stand wholly
// in the template's own text, and nowhere else: what came from a message is plain text, whatever it
// spells. All text between two such tokens is encoded as one stretch, whoever wrote its parts, so
// that words and Unicode compositions do not break where the template ends and a message begins.
// Throws Error as Tokenizer::encode does.
std::vector<std::int32_t> encode_segments(const Tokenizer& tokenizer,
                                          std::span<const Segment> segments);

// The messages in the form of the model's template. Throws Error if the file has none.
Rendered render_chat(OpenedModel& model, const Json& messages, const Json& tools,
                     bool add_generation_prompt);

}  // namespace qwen::cli

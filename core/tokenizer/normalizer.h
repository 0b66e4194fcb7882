// Unicode normalisation form C, which Qwen's tokenizer applies and GGUF files cannot mention.
#pragma once

#include <string>
#include <string_view>

namespace qwen {

// `text`, valid UTF-8, in NFC: a view of `text` itself where it is surely NFC already, else of
// `buffer`. Time n log n at worst, whatever the order of combining marks. Unicode version:
// utf8proc's (14 in 2.8).
std::string_view normalize_nfc(std::string_view text, std::string& buffer);

// True for code points that are NFC, of combining class 0, and never combine with what stands
// before them: text can be cut in front of them, and text of nothing else is NFC. Covers the common
// scripts only; false says nothing.
bool is_nfc_inert(char32_t code_point);

}  // namespace qwen

#pragma once

// Files of comma-separated values, plain or compressed with gzip.

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

namespace tide::simulate {

// A row's fields; quotes ("") may stand around one. False: a quote that does not end.
bool split_row(std::string_view line, std::vector<std::string>* fields);

// All of the text is the number.
template <class Number>
bool parse_number(const std::string& text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

// The whole file, unpacked; else the answer is why not.
std::string read_whole(const std::string& path, std::string* text);

}  // namespace tide::simulate

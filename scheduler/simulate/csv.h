#pragma once

// Files of comma-separated values, plain or compressed with gzip.

#include <charconv>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/outcome.h"

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

// `first` is shown the first line, `row` the fields of each other one. Stops at the first that does not fit: the error
// names file and line.
Outcome read_rows(const std::string& path, const std::function<Outcome(std::string_view)>& first,
                  const std::function<Outcome(const std::vector<std::string>&)>& row);

}  // namespace tide::simulate

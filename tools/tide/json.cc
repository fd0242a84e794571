#include "tools/tide/json.h"

#include <stdio.h>

#include <charconv>

#include "base/log.h"

namespace tide::cli {

void Json::comma() {
  if (after_value_) out_ += ", ";
  after_value_ = true;
}

Json& Json::object() {
  comma();
  out_ += '{';
  open_ += '}';
  after_value_ = false;
  return *this;
}

Json& Json::list() {
  comma();
  out_ += '[';
  open_ += ']';
  after_value_ = false;
  return *this;
}

Json& Json::end() {
  out_ += open_.back();
  open_.pop_back();
  after_value_ = true;
  return *this;
}

Json& Json::key(const char* name) {
  text(name);
  out_ += ": ";
  after_value_ = false;
  return *this;
}

Json& Json::text(const std::string& value) {
  comma();
  out_ += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out_ += '\\';
      out_ += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out_ += format("\\u%04x", unsigned(c));
    } else {
      out_ += c;
    }
  }
  out_ += '"';
  return *this;
}

Json& Json::number(uint64_t value) {
  comma();
  out_ += std::to_string(value);
  return *this;
}

Json& Json::number(int64_t value) {
  comma();
  out_ += std::to_string(value);
  return *this;
}

Json& Json::number(double value) {
  comma();
  out_ += format("%.6g", value);
  return *this;
}

Json& Json::exact(double value) {
  comma();
  char text[64];
  out_.append(text, std::to_chars(text, text + sizeof text, value).ptr);
  return *this;
}

Json& Json::boolean(bool value) {
  comma();
  out_ += value ? "true" : "false";
  return *this;
}

void Json::print() const { puts(out_.c_str()); }

void Json::print_so_far() {
  fputs(out_.c_str(), stdout);
  out_.clear();
}

}  // namespace tide::cli

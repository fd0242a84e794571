#include "interpose/trace/call.h"

#include <string.h>

#include <algorithm>

#include "base/log.h"
#include "interpose/trace/format.h"

namespace tide::trace {
namespace {

constexpr size_t kParametersMax = 64;

bool is_output(char kind) { return kind != 0 && strchr("zpmng", kind) != nullptr; }

// An argument before anybody makes text of it.
struct Raw {
  Argument::Type type = Argument::Type::kNone;
  uint8_t given = kValue;
  uint64_t number = 0;
  float real = 0;
  const char* text = nullptr;
  size_t text_bytes = 0;
};

Raw read_text(Cursor& from) {
  Raw raw;
  const uint64_t length = from.varint();
  if (length == 0 || length > kTextMax + 1) return raw;
  raw.type = Argument::Type::kText;
  raw.text = from.raw(length - 1);
  raw.text_bytes = raw.text == nullptr ? 0 : length - 1;
  return raw;
}

Raw read_raw(Cursor& from, char kind) {
  using Type = Argument::Type;
  if (kind == 's') return read_text(from);
  Raw raw;
  if (is_output(kind)) raw.given = from.byte();
  if (raw.given != kValue) return raw;
  switch (kind) {
    case 'f':
    case 'g':
      raw.type = Type::kReal;
      if (const char* bytes = from.raw(sizeof raw.real); bytes != nullptr) memcpy(&raw.real, bytes, sizeof raw.real);
      return raw;
    case 'i':
    case 'n':
      raw.type = Type::kSigned;
      raw.number = uint64_t(unzigzag(from.varint()));
      return raw;
    case 'x':
    case 'p':
      raw.type = Type::kAddress;
      raw.number = from.varint();
      return raw;
    case 'u':
    case 'z':
    case 'm':
      raw.type = Type::kUnsigned;
      raw.number = from.varint();
      return raw;
    default:
      return raw;
  }
}

std::string text_of(const Raw& raw, char kind) {
  switch (raw.type) {
    case Argument::Type::kReal:
      return format("%g", double(raw.real));
    case Argument::Type::kSigned:
      return std::to_string(int64_t(raw.number));
    case Argument::Type::kUnsigned:
      return std::to_string(raw.number);
    case Argument::Type::kAddress:
      return raw.number == 0 ? "0x0" : format("%#llx", static_cast<unsigned long long>(raw.number));
    case Argument::Type::kText:
      return printable(raw.text, raw.text_bytes);
    default:
      if (raw.given != kValue) return raw.given == kNull ? "null" : "-";
      return kind == 's' ? "-" : "{...}";
  }
}

// The words of a line.
bool parse_function(const std::string& line, Function* function) {
  for (size_t word = 0; word < line.size();) {
    const size_t next = std::min(line.find(' ', word), line.size());
    const std::string part = line.substr(word, next - word);
    word = next + 1;
    if (function->name.empty()) {
      function->name = part;
      continue;
    }
    if (part.size() < 3 || part[part.size() - 2] != ':') return false;
    if (function->parameters.size() == kParametersMax) return false;
    function->parameters.push_back({part.substr(0, part.size() - 2), part.back()});
  }
  return true;
}

}  // namespace

uint64_t Cursor::varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const uint8_t part = byte();
    value |= uint64_t(part & 0x7f) << shift;
    if (part < 0x80) return value;
  }
  ok_ = false;
  return 0;
}

uint8_t Cursor::byte() {
  const char* from = raw(1);
  return from == nullptr ? 0 : uint8_t(*from);
}

const char* Cursor::raw(size_t bytes) {
  if (!ok_ || size_t(end_ - at_) < bytes) {
    ok_ = false;
    return nullptr;
  }
  at_ += bytes;
  return at_ - bytes;
}

bool parse_table(const std::string& text, std::vector<Function>* functions) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    Function function;
    if (!parse_function(text.substr(at, end - at), &function)) return false;
    if (!function.name.empty()) functions->push_back(std::move(function));
    at = end + 1;
  }
  return functions->size() <= UINT16_MAX;
}

bool read_call(Cursor& from, const std::vector<Function>& functions, uint64_t base_ns, Call* call) {
  const uint64_t function = from.varint();
  call->begin_ns = base_ns + uint64_t(unzigzag(from.varint()));
  call->duration_ns = from.varint();
  const uint8_t mask = from.byte();
  uint64_t result = 0;
  TravelCounters& t = call->travel;
  t = {};
  uint64_t* const fields[] = {&result, &t.commands, &t.sent_bytes, &t.received_bytes, &t.round_trips, &t.wait_ns};
  for (int i = 0; i < 6; ++i) {
    if ((mask & 1 << i) != 0) *fields[i] = from.varint();
  }
  if (!from.ok() || function >= functions.size()) return false;
  call->function = uint16_t(function);
  call->result = int32_t(result);
  call->arguments = from.at();
  for (const Parameter& parameter : functions[function].parameters) (void)read_raw(from, parameter.kind);
  call->argument_bytes = uint32_t(from.at() - call->arguments);
  return from.ok();
}

std::vector<Argument> arguments_of(const Call& call, const Function& function) {
  std::vector<Argument> all;
  Cursor from(call.arguments, call.argument_bytes);
  for (const Parameter& parameter : function.parameters) {
    const Raw raw = read_raw(from, parameter.kind);
    all.push_back({.parameter = &parameter,
                   .type = raw.type,
                   .output = is_output(parameter.kind),
                   .number = raw.number,
                   .real = double(raw.real),
                   .text = text_of(raw, parameter.kind)});
  }
  return all;
}

std::string printable(const char* text, size_t bytes) {
  std::string out;
  for (size_t i = 0; i < bytes; ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    out += c >= 0x20 && c < 0x7f ? std::string(1, char(c)) : format("\\x%02x", c);
  }
  return out;
}

}  // namespace tide::trace

#pragma once

// One call as it lies in a frame (format.h), and what the table of the file says of its function.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "api/travel.h"

namespace tide::trace {

struct Parameter {
  std::string name;
  char kind;
};

struct Function {
  std::string name;
  std::vector<Parameter> parameters;
};

struct Call {
  uint32_t process;  // index
  uint32_t thread;
  uint16_t function;
  int32_t result;
  uint64_t begin_ns, duration_ns;
  TravelCounters travel;
  const char* arguments;  // within the frame
  uint32_t argument_bytes;
};

struct Argument {
  enum class Type { kNone, kUnsigned, kSigned, kReal, kAddress, kText };
  const Parameter* parameter;
  Type type = Type::kNone;
  bool output = false;  // what the call answered
  uint64_t number = 0;
  double real = 0;
  std::string text;  // of every type as people read it
};

// Only what lies within its piece is read; after a step outside, everything is zero and ok() false.
class Cursor {
 public:
  Cursor(const char* begin, size_t bytes) : at_(begin), end_(begin + bytes) {}
  bool ok() const { return ok_; }
  bool over() const { return at_ == end_; }
  const char* at() const { return at_; }
  uint64_t varint();
  uint8_t byte();
  const char* raw(size_t bytes);

 private:
  const char* at_;
  const char* end_;
  bool ok_ = true;
};

// False: the text is no table.
bool parse_table(const std::string& text, std::vector<Function>* functions);
// The call at the cursor, but for its process and thread. False: there is none whole.
bool read_call(Cursor& from, const std::vector<Function>& functions, uint64_t base_ns, Call* call);
std::vector<Argument> arguments_of(const Call& call, const Function& function);
// What is no letter of ASCII as \xNN.
std::string printable(const char* text, size_t bytes);

}  // namespace tide::trace

// Functions that every kernel may call: vprintf and __assertfail. Their arguments lie in local memory, at the places
// that KernelCode::copies names.

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "softgpu/exec/conditionals.h"
#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"

namespace softgpu {
namespace {

constexpr size_t kLongestText = 1 << 16;

uint64_t argument(const MicroOp& op, const Warp& w, uint32_t lane, size_t index) {
  const CallCopy& copy = w.block->code->copies[static_cast<size_t>(op.imm)][index];
  uint64_t value = 0;
  std::memcpy(&value, w.local + lane * w.block->memory.local_bytes + copy.from, std::min<uint32_t>(copy.bytes, 8));
  return value;
}

bool read_text(const Warp& w, uint32_t lane, uint64_t address, std::string* out) {
  out->clear();
  while (out->size() < kLongestText) {
    const std::byte* p = translate_generic(w, lane, address + out->size(), 1);
    if (p == nullptr) return false;
    if (*p == std::byte{0}) return true;
    out->push_back(static_cast<char>(*p));
  }
  return true;
}

// The arguments of a printf as the compiler packs them: each at a multiple of its own size.
class Arguments {
 public:
  Arguments(const Warp& w, uint32_t lane, uint64_t address) : w_(w), lane_(lane), base_(address) {}
  bool next(uint32_t bytes, uint64_t* out) {
    offset_ = (offset_ + bytes - 1) / bytes * bytes;
    const std::byte* p = translate_generic(w_, lane_, base_ + offset_, bytes);
    if (p == nullptr) return false;
    *out = 0;
    std::memcpy(out, p, bytes);
    offset_ += bytes;
    return true;
  }

 private:
  const Warp& w_;
  uint32_t lane_;
  uint64_t base_;
  uint64_t offset_ = 0;
};

struct Conversion {
  std::string flags;  // with width and precision
  bool wide = false;
  char letter = 0;
};

template <class T>
void print(const std::string& format, T value, std::string* out) {
  char text[512];
  const int n = std::snprintf(text, sizeof(text), format.c_str(), value);
  if (n > 0) out->append(text, std::min<size_t>(static_cast<size_t>(n), sizeof(text) - 1));
}

bool convert(const Warp& w, uint32_t lane, const Conversion& c, Arguments* arguments, std::string* out) {
  uint64_t v = 0;
  switch (c.letter) {
    case 'd':
    case 'i':
      if (!arguments->next(c.wide ? 8 : 4, &v)) return false;
      print(c.flags + PRId64, c.wide ? static_cast<int64_t>(v) : static_cast<int64_t>(static_cast<int32_t>(v)), out);
      return true;
    case 'u':
    case 'o':
    case 'x':
    case 'X':
      if (!arguments->next(c.wide ? 8 : 4, &v)) return false;
      print(c.flags + "l" + c.letter, v, out);
      return true;
    case 'c':
      if (!arguments->next(4, &v)) return false;
      print(c.flags + "c", static_cast<int>(v), out);
      return true;
    case 'p':
      if (!arguments->next(8, &v)) return false;
      print(c.flags + "p", reinterpret_cast<void*>(v), out);
      return true;
    case 's': {
      std::string text;
      if (!arguments->next(8, &v) || !read_text(w, lane, v, &text)) return false;
      print(c.flags + "s", text.c_str(), out);
      return true;
    }
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
    case 'a':
    case 'A': {
      if (!arguments->next(8, &v)) return false;
      double d = 0;
      std::memcpy(&d, &v, 8);
      print(c.flags + c.letter, d, out);
      return true;
    }
    default:
      out->push_back('%');
      out->push_back(c.letter);
      return true;
  }
}

// Reads one conversion behind '%'; `*` takes its number from the arguments.
size_t read_conversion(const std::string& format, size_t at, Arguments* arguments, Conversion* out) {
  out->flags = "%";
  while (at < format.size() && std::strchr("-+ #0123456789.*", format[at]) != nullptr && out->flags.size() < 24) {
    uint64_t v = 0;
    if (format[at] == '*') {
      if (arguments->next(4, &v)) out->flags += std::to_string(static_cast<int32_t>(v));
    } else {
      out->flags.push_back(format[at]);
    }
    ++at;
  }
  while (at < format.size() && std::strchr("hlLqjzt", format[at]) != nullptr) {
    out->wide = out->wide || format[at] != 'h';
    ++at;
  }
  out->letter = at < format.size() ? format[at] : '%';
  return at + 1;
}

bool format_text(const Warp& w, uint32_t lane, const std::string& format, uint64_t address, std::string* out) {
  Arguments arguments(w, lane, address);
  for (size_t i = 0; i < format.size();) {
    if (format[i] != '%') {
      out->push_back(format[i++]);
    } else if (i + 1 < format.size() && format[i + 1] == '%') {
      out->push_back('%');
      i += 2;
    } else {
      Conversion c;
      i = read_conversion(format, i + 1, &arguments, &c);
      if (!convert(w, lane, c, &arguments, out)) return false;
    }
  }
  return true;
}

void vprintf_lanes(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    std::string format, out;
    if (!read_text(w, lane, argument(op, w, lane, 0), &format) ||
        !format_text(w, lane, format, argument(op, w, lane, 1), &out)) {
      return raise(w, FaultKind::kIllegalAddress, argument(op, w, lane, 0), lane);
    }
    std::fwrite(out.data(), 1, out.size(), stdout);
    if (op.target == ~uint32_t{0}) continue;
    const auto written = static_cast<uint32_t>(out.size());
    std::memcpy(w.local + lane * w.block->memory.local_bytes + op.target, &written, 4);
  }
  std::fflush(stdout);
}

void assertfail(const MicroOp& op, Warp& w, uint32_t mask) {
  const auto lane = static_cast<uint32_t>(std::countr_zero(mask));
  std::string message, file, function;
  read_text(w, lane, argument(op, w, lane, 0), &message);
  read_text(w, lane, argument(op, w, lane, 1), &file);
  read_text(w, lane, argument(op, w, lane, 3), &function);
  const Block& b = *w.block;
  const Dim3& size = b.launch->block;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const uint32_t thread = w.index * 32 + static_cast<uint32_t>(std::countr_zero(m));
    std::fprintf(stderr, "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n", file.c_str(),
                 static_cast<uint32_t>(argument(op, w, lane, 2)), function.c_str(), b.index.x, b.index.y, b.index.z,
                 thread % size.x, thread / size.x % size.y, thread / size.x / size.y, message.c_str());
  }
  raise(w, FaultKind::kAssert, 0, lane);
}

// cudaGraphSetConditional(handle, value)
void set_conditionals(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t handle = argument(op, w, lane, 0);
    if (!set_conditional(handle, static_cast<uint32_t>(argument(op, w, lane, 1)))) {
      return raise(w, FaultKind::kIllegalAddress, handle, lane);
    }
  }
}

constexpr HandlerRow kRows[] = {
    {"call.vprintf", vprintf_lanes}, {"call.assertfail", assertfail}, {"call.setconditional", set_conditionals}};

}  // namespace

HandlerRows runtime_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu

// Functions that every kernel may call: vprintf, __assertfail, malloc, free. Their arguments lie in local memory, at
// the places that a call site names.

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "softgpu/exec/builtin.h"
#include "softgpu/exec/conditionals.h"
#include "softgpu/exec/handlers.h"
#include "softgpu/exec/services.h"
#include "softgpu/exec/warp.h"

namespace softgpu {
namespace {

constexpr size_t kLongestText = 1 << 16;

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

// `count`: how many arguments it has taken.
bool format_text(const Warp& w, uint32_t lane, const std::string& format, uint64_t address, std::string* out,
                 uint32_t* count) {
  Arguments arguments(w, lane, address);
  for (size_t i = 0; i < format.size() && out->size() < kLongestText;) {
    if (format[i] != '%') {
      out->push_back(format[i++]);
    } else if (i + 1 < format.size() && format[i + 1] == '%') {
      out->push_back('%');
      i += 2;
    } else {
      Conversion c;
      i = read_conversion(format, i + 1, &arguments, &c);
      if (!convert(w, lane, c, &arguments, out)) return false;
      ++*count;
    }
  }
  return true;
}

void vprintf_lanes(const MicroOp& op, Warp& w, uint32_t mask) {
  DeviceServices* services = w.block->launch->services;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    std::string format, out;
    uint32_t count = 0;
    const uint64_t text = builtin_argument(op, w, lane, 0);
    if (text == 0) {
      set_builtin_result(op, w, lane, static_cast<uint64_t>(-1), 4);
      continue;
    }
    if (!read_text(w, lane, text, &format) ||
        !format_text(w, lane, format, builtin_argument(op, w, lane, 1), &out, &count)) {
      return raise(w, FaultKind::kIllegalAddress, text, lane);
    }
    if (services != nullptr) {
      services->print(out);
    } else {
      std::fwrite(out.data(), 1, out.size(), stdout);
    }
    set_builtin_result(op, w, lane, count, 4);
  }
}

void assertfail(const MicroOp& op, Warp& w, uint32_t mask) {
  DeviceServices* services = w.block->launch->services;
  const auto first = static_cast<uint32_t>(std::countr_zero(mask));
  std::string message, file, function;
  read_text(w, first, builtin_argument(op, w, first, 0), &message);
  read_text(w, first, builtin_argument(op, w, first, 1), &file);
  read_text(w, first, builtin_argument(op, w, first, 3), &function);
  const std::string line = std::to_string(static_cast<uint32_t>(builtin_argument(op, w, first, 2)));
  const auto triple = [](uint64_t x, uint64_t y, uint64_t z) {
    return "[" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + "]";
  };
  const Block& b = *w.block;
  const Dim3& size = b.launch->block;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const uint32_t thread = w.index * 32 + static_cast<uint32_t>(std::countr_zero(m));
    const std::string text =
        file + ":" + line + ": " + function + ": block: " + triple(b.index.x, b.index.y, b.index.z) +
        ", thread: " + triple(thread % size.x, thread / size.x % size.y, thread / size.x / size.y) + " Assertion `" +
        message + "` failed.\n";
    if (services != nullptr) {
      services->complain(text);
    } else {
      std::fputs(text.c_str(), stderr);
    }
  }
  raise(w, FaultKind::kAssert, 0, first);
}

// cudaGraphSetConditional(handle, value)
void set_conditionals(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t handle = builtin_argument(op, w, lane, 0);
    if (!set_conditional(handle, static_cast<uint32_t>(builtin_argument(op, w, lane, 1)))) {
      return raise(w, FaultKind::kIllegalAddress, handle, lane);
    }
  }
}

void allocate(const MicroOp& op, Warp& w, uint32_t mask) {
  DeviceServices* services = w.block->launch->services;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t bytes = builtin_argument(op, w, lane, 0);
    set_builtin_result(op, w, lane, services == nullptr ? 0 : services->allocate(bytes), 8);
  }
}

void release(const MicroOp& op, Warp& w, uint32_t mask) {
  DeviceServices* services = w.block->launch->services;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t address = builtin_argument(op, w, lane, 0);
    if (address == 0) continue;
    if (services == nullptr || !services->release(address)) return raise(w, FaultKind::kTrap, address, lane);
  }
}

constexpr HandlerRow kRows[] = {
    {"call.vprintf", vprintf_lanes},
    {"call.__assertfail", assertfail},
    {"call.malloc", allocate},
    {"call.free", release},
    {"call.cudaGraphSetConditional", set_conditionals},
};

}  // namespace

HandlerRows runtime_rows() { return {kRows, std::size(kRows)}; }

uint64_t builtin_argument(const MicroOp& op, const Warp& w, uint32_t lane, size_t index) {
  const CallSite& site = w.block->code->sites[static_cast<size_t>(op.imm)];
  uint64_t value = 0;
  if (index >= site.copies.size()) return 0;
  const CallCopy& copy = site.copies[index];
  std::memcpy(&value, call_place(w, lane, site, copy.from), std::min<uint32_t>(copy.bytes, 8));
  return value;
}

bool builtin_bytes(const MicroOp& op, const Warp& w, uint32_t lane, size_t index, void* out, uint32_t bytes) {
  const CallSite& site = w.block->code->sites[static_cast<size_t>(op.imm)];
  if (index >= site.copies.size() || site.copies[index].bytes < bytes) return false;
  std::memcpy(out, call_place(w, lane, site, site.copies[index].from), bytes);
  return true;
}

void set_builtin_result(const MicroOp& op, Warp& w, uint32_t lane, uint64_t value, uint32_t bytes) {
  if (op.target == ~uint32_t{0}) return;
  const CallSite& site = w.block->code->sites[static_cast<size_t>(op.imm)];
  std::memcpy(call_place(w, lane, site, op.target), &value, bytes);
}

}  // namespace softgpu

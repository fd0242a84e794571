#pragma once

// PTX text as a tree: module variables, functions, statements. Names of registers, labels and the variables of a
// function are resolved; names of module scope are looked up by the lowering.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace softgpu::ptx {

enum class Type : uint8_t {
  kNone,
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kB128,
  kU8,
  kU16,
  kU32,
  kU64,
  kU16x2,
  kS8,
  kS16,
  kS32,
  kS64,
  kS16x2,
  kF16,
  kF16x2,
  kBf16,
  kBf16x2,
  kF32,
  kF32x2,
  kF64,
  kTexref,  // opaque: 64 bits that hold a handle, of a sampler its description
  kSurfref,
  kSamplerref,
};

// Type named by a suffix such as ".u32"; kNone when the suffix names no type.
Type type_of(std::string_view suffix);
uint32_t bytes_of(Type type);
bool is_signed(Type type);
bool is_float(Type type);

enum class Space : uint8_t { kNone, kRegister, kGlobal, kConst, kShared, kLocal, kParam };

// Who may see a name of module scope, and who wins where several units define it.
enum class Linkage : uint8_t { kLocal, kVisible, kWeak, kCommon, kExtern };

// One value of an initialiser: a number, or the address of a symbol plus an addend, perhaps one byte of it.
struct Initial {
  uint64_t bits = 0;  // the number, or the addend
  std::string_view symbol;
  uint64_t mask = ~uint64_t{0};
};

struct Variable {
  std::string_view name;
  Type type = Type::kNone;
  Space space = Space::kNone;
  uint32_t align = 1;
  uint64_t bytes = 0;  // 0: `extern .shared` of unknown size
  bool external = false;
  bool managed = false;  // .attribute(.managed)
  Linkage linkage = Linkage::kLocal;
  uint32_t unit = 0;  // of the linked module
  std::vector<Initial> initial;
  uint32_t line = 0;
};

struct Operand {
  enum class Kind : uint8_t {
    kNone,
    kRegister,  // reg; name with its selector, as in %r1.h0
    kInteger,   // bits
    kReal,      // bits of a double
    kReal32,    // bits of a float
    kVariable,  // reg: index of the function's variables, + offset
    kSymbol,    // name, + offset: module scope, resolved by the lowering
    kLabel,     // bits: index of the statement
    kSpecial,   // name of a special register, with its component
    kAddress,   // parts[0] is the base, + offset
    kVector,    // parts
    kPair,      // parts: `a|b`
    kList,      // parts: `(a, b)` of a call
    kSink,      // `_`
  };
  Kind kind = Kind::kNone;
  bool negated = false;  // `!p`, `-a`
  uint32_t reg = 0;
  uint32_t scope = 0;  // where a name was used, until labels are resolved
  uint64_t bits = 0;
  int64_t offset = 0;
  std::string_view name;
  std::vector<Operand> parts;
};

struct Instruction {
  std::string_view opcode;
  std::vector<std::string_view> modifiers;  // without the dots
  std::vector<Operand> operands;
  int32_t guard = -1;  // register
  bool guard_negated = false;
  uint32_t line = 0;
  std::string_view text;
};

// In a module a function is its head: what follows `source_line` is read again from `source` when it is wanted, because
// the trees of all functions of a large library would take ten times its text.
struct Function {
  std::string_view name;
  bool entry = false;
  bool has_body = false;
  Linkage linkage = Linkage::kLocal;
  uint32_t unit = 0;  // of the linked module
  uint32_t line = 0;
  uint32_t max_threads = 1024;
  uint32_t cluster[3] = {};      // blocks, where the kernel demands it
  std::vector<Variable> params;  // Space::kParam or kRegister
  std::vector<Variable> returns;
  std::string_view source;  // from '{' to '}'
  uint32_t source_line = 0;

  std::vector<Type> registers;      // type of each
  std::vector<Variable> variables;  // of the body, and the parameters: those come first (returns, then params)
  std::vector<Instruction> body;
  std::unordered_map<std::string_view, std::vector<Operand>> tables;  // .branchtargets, by their label
};

// What the names of one unit stand for.
struct Symbols {
  std::unordered_map<std::string_view, uint32_t> variables;  // index in Module::variables
  std::unordered_map<std::string_view, uint32_t> functions;
};

// One unit as it was read, or several joined by link().
struct Module {
  std::string name;      // for messages; may be empty
  std::string text;      // every string_view points into it
  uint32_t target = 0;   // 80 for sm_80
  uint32_t version = 0;  // 83 for 8.3
  std::vector<Variable> variables;
  std::vector<std::unique_ptr<Function>> functions;
  std::vector<Symbols> symbols = std::vector<Symbols>(1);  // of each unit
  std::vector<uint32_t> address_taken;                     // functions that a pointer may name; of a linked module
  std::vector<std::unique_ptr<Module>> units;              // a linked module: whose texts it points into

  // Index of what a name means inside a unit, or -1.
  int64_t find_variable(uint32_t unit, std::string_view symbol) const;
  int64_t find_function(uint32_t unit, std::string_view symbol) const;
};

}  // namespace softgpu::ptx

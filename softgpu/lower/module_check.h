#pragma once

// Finds out while a module is read which kernels use instructions that are not supported, without lowering them. Two
// instructions with the same words and the same kinds of operands have the same form; the first of each form that the
// process meets is tried, the others go by what was found then.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "softgpu/exec/handlers.h"
#include "softgpu/lower/image.h"
#include "softgpu/ptx/ast.h"

namespace softgpu {

class ModuleCheck {
 public:
  // To be called for every function as it is read; `unit` is the number that its module will have in the linked one.
  void visit(const ptx::Module& module, const ptx::Function& function, uint32_t unit);
  // When all have been read. False, with *error set, when a function names a symbol that was never declared.
  bool finish(const ptx::Module& module, const ImageLayout& image, const HandlerTable& handlers, std::string* error);

  // Functions whose address an instruction or an initialiser takes, by their number in the linked module.
  std::vector<uint32_t> address_taken(const ptx::Module& module) const;

  // One line on what kernel `function` of the module lacks, empty when it lacks nothing.
  std::string missing(uint32_t function) const;
  // One line for each form that is missing.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  struct Form {
    uint64_t key = 0;
    uint32_t first = 0;  // entry of functions_ that has it first
    uint32_t last = 0;   // entry of functions_ that was seen with it last, plus one
    bool missing = false;
    std::string words;
  };
  struct Use {
    uint32_t form;
    uint32_t line;
  };
  struct Seen {
    std::string_view name;
    uint32_t unit = 0;
    bool entry = false;
    std::vector<Use> uses;
    std::vector<std::string_view> callees;
    bool indirect = false;  // calls what a register names
  };

  void see(const ptx::Instruction& in, const ptx::Function& function, Seen* seen);
  void take_addresses(const ptx::Module& module, const ptx::Operand& o, uint32_t unit);
  void find_functions(const ptx::Module& module);
  void probe(const ptx::Module& module, const ImageLayout& image, const HandlerTable& handlers);
  bool find_missing(const ptx::Module& module, const std::string& kernel, int64_t function, std::vector<bool>* visited,
                    std::string* out) const;
  void write_warnings(const ptx::Module& module);

  std::vector<Form> forms_;
  std::unordered_map<uint64_t, uint32_t> form_of_;
  std::vector<Seen> functions_;
  std::vector<int64_t> seen_of_;      // by the number of the function in the module: entry of functions_, or -1
  std::vector<std::string> missing_;  // by the number of the function in the module
  std::vector<std::string> warnings_;
  std::vector<std::pair<uint32_t, std::string_view>> taken_;  // unit, function
  std::string error_;
};

}  // namespace softgpu

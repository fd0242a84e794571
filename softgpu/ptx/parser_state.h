#pragma once

// The parser's cursor and what both halves of it (declarations, statements) share.

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "softgpu/ptx/ast.h"
#include "softgpu/ptx/lexer.h"
#include "softgpu/ptx/parser.h"

namespace softgpu::ptx {

// `.reg .b32 %r<10>;` declares ten names; a register gets its number when it is first used.
struct RegisterRange {
  Type type;
  uint64_t count;
};

struct Scope {
  uint32_t parent;
  std::unordered_map<std::string_view, uint32_t> registers;
  std::unordered_map<std::string_view, RegisterRange> ranges;
  std::unordered_map<std::string_view, uint32_t> variables;
  std::unordered_map<std::string_view, uint32_t> labels;
};

class Parser {
 public:
  Parser(Module& module, const FunctionVisitor& visit, std::string* error);
  Parser(const Function& head, Function* function, std::string* error);
  bool module();
  bool body();

 private:
  // Tokens.
  void advance() { token_ = lexer_.next(); }
  bool accept(char c);
  bool expect(char c);
  bool fail(const std::string& what);
  bool failed() const { return failed_; }
  bool name(std::string_view* out);
  bool number(uint64_t* out);
  void skip_line();
  void skip_statement();
  void skip_block();

  // Declarations (declarations.cc).
  bool directive();
  bool linked_symbol();
  bool variable(Space space, bool external, Variable* out);
  bool variable_header(Variable* out);
  bool dimensions(Variable* out, bool* is_array);
  bool initialiser(Variable* out);
  bool initial_value(Variable* out);
  bool opaque_initialiser(Variable* out);
  bool function(bool entry, Linkage linkage);
  bool parameters(std::vector<Variable>* out);
  bool function_attributes(Function* out);
  bool registers();
  bool local_variables(Space space);

  // Statements (statements.cc).
  bool statement();
  bool body_directive();
  bool instruction();
  bool label(std::string_view name);
  bool branch_targets();
  bool operand(Operand* out);
  bool primary(Operand* out);
  bool read_primary(Operand* out);
  bool literal(Operand* out, bool minus);
  bool address(Operand* out);
  bool sequence(Operand* out, Operand::Kind kind, char close);
  bool offset(int64_t* out);
  bool guard(Instruction* out);
  Operand resolve(std::string_view name);
  int64_t find_register(std::string_view name);
  bool resolve_labels();
  bool resolve_label(Operand* operand);

  Module* module_ = nullptr;  // null while one body is read
  const FunctionVisitor* visit_ = nullptr;
  Lexer lexer_;
  Token token_;
  std::string* error_;
  bool failed_ = false;
  bool video_ = false;  // in a video instruction, whose operands take signs and selectors
  uint32_t depth_ = 0;  // of operands within operands
  Function* function_ = nullptr;
  std::vector<Scope> scopes_;
  uint32_t scope_ = 0;
  std::string_view last_label_;
};

}  // namespace softgpu::ptx

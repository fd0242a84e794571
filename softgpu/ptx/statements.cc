#include <cstring>

#include "softgpu/ptx/parser_state.h"

namespace softgpu::ptx {

bool Parser::body() {
  scopes_.clear();
  scopes_.push_back({});
  scope_ = 0;
  for (const auto* list : {&function_->returns, &function_->params}) {
    for (const Variable& v : *list) {
      if (v.space == Space::kRegister) {
        scopes_[0].registers[v.name] = static_cast<uint32_t>(function_->registers.size());
        function_->registers.push_back(v.type);
      } else {
        scopes_[0].variables[v.name] = static_cast<uint32_t>(function_->variables.size());
      }
      function_->variables.push_back(v);
    }
  }
  if (!expect('{')) return false;
  int depth = 1;
  while (depth > 0 && !failed()) {
    if (token_.kind == Token::Kind::kEnd) return fail("the function has no end");
    if (accept('{')) {
      ++depth;
      scopes_.push_back({});
      scopes_.back().parent = scope_;
      scope_ = static_cast<uint32_t>(scopes_.size() - 1);
    } else if (token_.is('}')) {
      if (--depth == 0) {
        const char* begin = function_->source.data();
        function_->source = {begin, static_cast<size_t>(token_.text.data() + 1 - begin)};
      }
      advance();
      scope_ = scopes_[scope_].parent;
    } else {
      statement();
    }
  }
  return !failed() && resolve_labels();
}

bool Parser::statement() {
  if (token_.kind == Token::Kind::kDot) return body_directive();
  return instruction();
}

bool Parser::body_directive() {
  const std::string_view word = token_.text;
  if (word == "loc" || word == "file") return skip_line(), true;
  if (word == "pragma" || word == "callprototype" || word == "calltargets") {
    return skip_statement(), true;
  }
  if (word == "branchtargets") return branch_targets();
  Space space = Space::kNone;
  if (word == "local") space = Space::kLocal;
  if (word == "shared") space = Space::kShared;
  if (word == "param") space = Space::kParam;
  if (word == "reg") {
    advance();
    return registers();
  }
  if (space == Space::kNone) return fail("directive '." + std::string(word) + "' is not supported");
  advance();
  return local_variables(space);
}

bool Parser::branch_targets() {
  advance();
  std::vector<Operand>& table = function_->tables[last_label_];
  do {
    table.emplace_back();
    if (!primary(&table.back())) return false;
  } while (accept(','));
  return expect(';');
}

bool Parser::label(std::string_view id) {
  last_label_ = id;
  scopes_[scope_].labels[id] = static_cast<uint32_t>(function_->body.size());
  return true;
}

bool Parser::guard(Instruction* out) {
  if (!accept('@')) return true;
  out->guard_negated = accept('!');
  std::string_view id;
  if (!name(&id)) return false;
  const int64_t reg = find_register(id);
  if (reg < 0) return fail("unknown predicate '" + std::string(id) + "'");
  out->guard = static_cast<int32_t>(reg);
  return true;
}

bool Parser::instruction() {
  Instruction in;
  in.line = token_.line;
  const char* start = token_.text.data();
  if (!guard(&in) || !name(&in.opcode)) return false;
  video_ = in.opcode[0] == 'v';
  if (in.guard < 0 && accept(':')) return label(in.opcode);
  while (token_.kind == Token::Kind::kDot) {
    in.modifiers.push_back(token_.text);
    advance();
  }
  if (!token_.is(';')) {
    do {
      in.operands.emplace_back();
      if (!operand(&in.operands.back())) return false;
    } while (accept(','));
  }
  in.text = {start, static_cast<size_t>(token_.text.data() - start)};
  if (!expect(';')) return false;
  function_->body.push_back(std::move(in));
  return true;
}

bool Parser::operand(Operand* out) {
  if (!primary(out)) return false;
  if (token_.is('|')) {
    advance();
    Operand first = std::move(*out);
    *out = {};
    out->kind = Operand::Kind::kPair;
    out->parts.push_back(std::move(first));
    out->parts.emplace_back();
    return primary(&out->parts.back());
  }
  return true;
}

bool Parser::primary(Operand* out) {
  constexpr uint32_t kDeepest = 16;
  if (depth_ == kDeepest) return fail("operands are nested too deeply");
  ++depth_;
  const bool ok = read_primary(out);
  --depth_;
  return ok;
}

bool Parser::read_primary(Operand* out) {
  if (accept('!')) {
    if (!primary(out)) return false;
    out->negated = !out->negated;
    return true;
  }
  if (accept('-')) {
    if (!video_ || token_.kind != Token::Kind::kName) return literal(out, true);
    if (!primary(out)) return false;
    out->negated = !out->negated;
    return true;
  }
  if (accept('{')) return sequence(out, Operand::Kind::kVector, '}');
  if (accept('(')) return sequence(out, Operand::Kind::kList, ')');
  if (accept('[')) return address(out);
  if (token_.kind != Token::Kind::kName) return literal(out, false);
  std::string_view id;
  if (!name(&id)) return false;
  if (id == "_") {
    out->kind = Operand::Kind::kSink;
    return true;
  }
  if (id == "generic" && accept('(')) {
    if (!name(&id) || !expect(')')) return false;
  }
  *out = resolve(id);
  const bool dotted = out->kind == Operand::Kind::kSpecial || (video_ && out->kind == Operand::Kind::kRegister);
  if (dotted && token_.kind == Token::Kind::kDot) {  // %tid.x, or the selector of a video instruction
    out->name = {out->name.data(), out->name.size() + 1 + token_.text.size()};
    advance();
  }
  if (out->kind == Operand::Kind::kVariable || out->kind == Operand::Kind::kSymbol) return offset(&out->offset);
  return true;
}

bool Parser::literal(Operand* out, bool minus) {
  switch (token_.kind) {
    case Token::Kind::kInteger:
      out->kind = Operand::Kind::kInteger;
      out->bits = minus ? 0 - token_.value : token_.value;
      break;
    case Token::Kind::kReal:
      out->kind = Operand::Kind::kReal;
      out->bits = token_.value ^ (minus ? uint64_t{1} << 63 : 0);
      break;
    case Token::Kind::kReal32:
      out->kind = Operand::Kind::kReal32;
      out->bits = token_.value ^ (minus ? uint64_t{1} << 31 : 0);
      break;
    default:
      return fail("unexpected '" + std::string(token_.text) + "'");
  }
  advance();
  return true;
}

bool Parser::offset(int64_t* out) {
  while (token_.is('+') || token_.is('-')) {
    bool minus = token_.is('-');
    advance();
    if (accept('-')) minus = !minus;
    uint64_t value = 0;
    if (!number(&value)) return false;
    *out += static_cast<int64_t>(minus ? 0 - value : value);
  }
  return true;
}

bool Parser::address(Operand* out) {
  out->kind = Operand::Kind::kAddress;
  out->parts.emplace_back();
  Operand& base = out->parts.back();
  if (!primary(&base)) return false;
  if (base.kind == Operand::Kind::kRegister && token_.is('+')) {
    advance();
    if (token_.kind == Token::Kind::kName) {
      out->parts.emplace_back();
      if (!primary(&out->parts.back())) return false;
    } else {
      const bool minus = accept('-');
      uint64_t value = 0;
      if (!number(&value)) return false;
      out->offset = static_cast<int64_t>(minus ? 0 - value : value);
    }
  }
  if (!offset(&out->offset)) return false;
  out->offset += out->parts[0].offset;
  out->parts[0].offset = 0;
  while (accept(',')) {  // texture coordinates
    out->parts.emplace_back();
    if (!primary(&out->parts.back())) return false;
  }
  return expect(']');
}

bool Parser::sequence(Operand* out, Operand::Kind kind, char close) {
  out->kind = kind;
  while (!failed() && !token_.is(close)) {
    out->parts.emplace_back();
    if (!operand(&out->parts.back())) return false;
    if (!accept(',')) break;
    if (token_.is(close)) return fail("expected an operand after ','");
  }
  return expect(close);
}

int64_t Parser::find_register(std::string_view id) {
  size_t stem = id.size();
  while (stem > 0 && id[stem - 1] >= '0' && id[stem - 1] <= '9') --stem;
  uint64_t number = 0;
  for (const char c : id.substr(stem)) number = number * 10 + static_cast<uint64_t>(c - '0');
  for (uint32_t s = scope_;; s = scopes_[s].parent) {
    Scope& scope = scopes_[s];
    if (const auto at = scope.registers.find(id); at != scope.registers.end()) return at->second;
    if (stem < id.size()) {
      const auto range = scope.ranges.find(id.substr(0, stem));
      if (range != scope.ranges.end() && number < range->second.count) {
        const auto index = static_cast<uint32_t>(function_->registers.size());
        function_->registers.push_back(range->second.type);
        scope.registers[id] = index;
        return index;
      }
    }
    if (s == 0) return -1;
  }
}

Operand Parser::resolve(std::string_view id) {
  Operand out;
  out.name = id;
  out.scope = scope_;
  if (function_ != nullptr) {
    const int64_t reg = find_register(id);
    if (reg >= 0) {
      out.kind = Operand::Kind::kRegister;
      out.reg = static_cast<uint32_t>(reg);
      return out;
    }
    for (uint32_t s = scope_;; s = scopes_[s].parent) {
      const auto at = scopes_[s].variables.find(id);
      if (at != scopes_[s].variables.end()) {
        out.kind = Operand::Kind::kVariable;
        out.reg = at->second;
        return out;
      }
      if (s == 0) break;
    }
  }
  out.kind = id[0] == '%' || id == "WARP_SZ" ? Operand::Kind::kSpecial : Operand::Kind::kSymbol;
  return out;
}

bool Parser::resolve_label(Operand* operand) {
  for (Operand& part : operand->parts) resolve_label(&part);
  if (operand->kind != Operand::Kind::kSymbol) return true;
  for (uint32_t s = operand->scope;; s = scopes_[s].parent) {
    const auto at = scopes_[s].labels.find(operand->name);
    if (at != scopes_[s].labels.end()) {
      operand->kind = Operand::Kind::kLabel;
      operand->bits = at->second;
      return true;
    }
    if (s == 0) return true;
  }
}

bool Parser::resolve_labels() {
  for (Instruction& in : function_->body) {
    for (Operand& o : in.operands) resolve_label(&o);
  }
  for (auto& [name, table] : function_->tables) {
    for (Operand& o : table) {
      resolve_label(&o);
      if (o.kind != Operand::Kind::kLabel) return fail("unknown label '" + std::string(o.name) + "'");
    }
  }
  return true;
}

}  // namespace softgpu::ptx

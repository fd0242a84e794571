#include <algorithm>

#include "softgpu/ptx/parser.h"
#include "softgpu/ptx/parser_state.h"

namespace softgpu::ptx {

Parser::Parser(Module& module, const FunctionVisitor& visit, std::string* error)
    : module_(&module), visit_(&visit), lexer_(module.text), error_(error) {
  advance();
}

Parser::Parser(const Function& head, Function* function, std::string* error)
    : lexer_(head.source, head.source_line), error_(error), function_(function) {
  advance();
}

bool Parser::accept(char c) {
  if (!token_.is(c)) return false;
  advance();
  return true;
}

bool Parser::expect(char c) {
  if (accept(c)) return true;
  return fail(std::string("expected '") + c + "' before '" + std::string(token_.text) + "'");
}

bool Parser::fail(const std::string& what) {
  if (!failed_) {
    failed_ = true;
    *error_ = (function_ != nullptr ? "kernel " + std::string(function_->name) + ", " : std::string()) + "line " +
              std::to_string(token_.line) + ": " + what;
  }
  return false;
}

bool Parser::name(std::string_view* out) {
  if (token_.kind != Token::Kind::kName) return fail("expected a name, not '" + std::string(token_.text) + "'");
  *out = token_.text;
  advance();
  return true;
}

bool Parser::number(uint64_t* out) {
  if (token_.kind != Token::Kind::kInteger) return fail("expected a number, not '" + std::string(token_.text) + "'");
  *out = token_.value;
  advance();
  return true;
}

void Parser::skip_line() {
  const uint32_t line = token_.line;
  while (token_.kind != Token::Kind::kEnd && token_.line == line) advance();
}

void Parser::skip_statement() {
  while (token_.kind != Token::Kind::kEnd && !token_.is(';')) advance();
  accept(';');
}

void Parser::skip_block() {
  int depth = 0;
  do {
    if (token_.is('{')) ++depth;
    if (token_.is('}')) --depth;
    advance();
  } while (depth > 0 && token_.kind != Token::Kind::kEnd);
}

bool Parser::module() {
  while (!failed() && token_.kind != Token::Kind::kEnd) {
    if (token_.kind != Token::Kind::kDot) return fail("expected a directive, not '" + std::string(token_.text) + "'");
    directive();
  }
  return !failed();
}

bool Parser::directive() {
  const std::string_view word = token_.text;
  if (word == "version") {
    advance();
    if (token_.kind != Token::Kind::kReal) return fail("expected a version");
    double version = 0;
    __builtin_memcpy(&version, &token_.value, sizeof(version));
    module_->version = static_cast<uint32_t>(version * 10 + 0.5);
    advance();
    return true;
  }
  if (word == "target") {
    advance();
    if (token_.text.substr(0, 3) == "sm_") {
      for (const char c : token_.text.substr(3)) {
        if (c >= '0' && c <= '9') module_->target = module_->target * 10 + (c - '0');
      }
    }
    advance();
    while (accept(',')) advance();
    return true;
  }
  if (word == "address_size") {
    advance();
    uint64_t bits = 0;
    if (!number(&bits)) return false;
    return bits == 64 || fail("only 64-bit PTX is supported");
  }
  if (word == "file" || word == "loc") return skip_line(), true;
  if (word == "pragma" || word == "alias") return skip_statement(), true;
  if (word == "section") {
    while (token_.kind != Token::Kind::kEnd && !token_.is('{')) advance();
    return skip_block(), true;
  }
  return linked_symbol();
}

// Linkage words, then a function or a variable.
bool Parser::linked_symbol() {
  Linkage linkage = Linkage::kLocal;
  while (token_.dot("visible") || token_.dot("extern") || token_.dot("weak") || token_.dot("common")) {
    if (linkage != Linkage::kLocal) return fail("a second linkage '." + std::string(token_.text) + "'");
    linkage = token_.dot("visible")  ? Linkage::kVisible
              : token_.dot("extern") ? Linkage::kExtern
              : token_.dot("weak")   ? Linkage::kWeak
                                     : Linkage::kCommon;
    advance();
  }
  if (token_.dot("entry") || token_.dot("func")) {
    const bool entry = token_.dot("entry");
    advance();
    return function(entry, linkage);
  }
  Space space = Space::kNone;
  if (token_.dot("global")) space = Space::kGlobal;
  if (token_.dot("const")) space = Space::kConst;
  if (token_.dot("shared")) space = Space::kShared;
  const bool old_texture = token_.dot("tex");  // `.tex .u32 name` is `.global .texref name`
  if (old_texture) space = Space::kGlobal;
  if (space == Space::kNone) return fail("directive '." + std::string(token_.text) + "' is not supported");
  advance();
  do {
    Variable v;
    if (!variable(space, linkage == Linkage::kExtern, &v)) return false;
    if (old_texture) {
      v.type = Type::kTexref;
      v.bytes = bytes_of(v.type);
      v.align = static_cast<uint32_t>(v.bytes);
    }
    v.linkage = linkage;
    const auto [at, fresh] = module_->symbols[0].variables.emplace(v.name, module_->variables.size());
    if (fresh) {
      module_->variables.push_back(v);
      continue;
    }
    Variable& known = module_->variables[at->second];
    if (!known.external && !v.external) return fail("duplicate definition of '" + std::string(v.name) + "'");
    if (known.external) known = v;
  } while (accept(','));
  return expect(';');
}

// Attributes and type, the part that a comma-separated list shares; a repeated call finds nothing to read.
bool Parser::variable_header(Variable* out) {
  while (token_.kind == Token::Kind::kDot) {
    const std::string_view word = token_.text;
    advance();
    uint64_t value = 0;
    if (word == "align") {
      if (!number(&value)) return false;
      constexpr uint64_t kMost = 1 << 20;
      if (value == 0 || (value & (value - 1)) != 0 || value > kMost) return fail("the alignment is no power of two");
      out->align = static_cast<uint32_t>(value);
    } else if (word == "attribute") {
      while (token_.kind != Token::Kind::kEnd && !token_.is(')')) {
        out->managed = out->managed || token_.dot("managed");
        advance();
      }
      if (!expect(')')) return false;
    } else if (word == "ptr" || word == "global" || word == "shared" || word == "const" || word == "local" ||
               word == "unified" || word == "volatile") {
      continue;
    } else {
      if (out->type != Type::kNone) return fail("a second type '." + std::string(word) + "'");
      out->type = type_of(word);
      if (out->type == Type::kNone) return fail("type '." + std::string(word) + "' is not supported");
    }
  }
  return true;
}

bool Parser::variable(Space space, bool external, Variable* out) {
  out->space = space;
  out->external = external;
  out->line = token_.line;
  bool is_array = false;
  // `.param .u64 .ptr .align 8 name`: the alignment is that of the pointee there, never below the type's.
  if (!variable_header(out)) return false;
  if (out->type == Type::kNone) return fail("expected a type before '" + std::string(token_.text) + "'");
  if (!name(&out->name) || !dimensions(out, &is_array)) return false;
  out->align = std::max(out->align, bytes_of(out->type));
  if (accept('=') && !initialiser(out)) return false;
  return true;
}

bool Parser::dimensions(Variable* out, bool* is_array) {
  uint64_t count = 1;
  while (accept('[')) {
    *is_array = true;
    uint64_t n = 0;
    if (!token_.is(']') && !number(&n)) return false;
    constexpr uint64_t kMost = uint64_t{1} << 40;
    if (n > kMost || (n != 0 && count > kMost / n)) return fail("an array is too large");
    count *= n;
    if (!expect(']')) return false;
  }
  out->bytes = count * bytes_of(out->type);
  return true;
}

// `{ filter_mode = linear, addr_mode_0 = wrap }` of a sampler, packed as exec/texture.cc reads it: two bits for each
// address mode, then the filter, then whether normalised coordinates are ignored. Properties of .texref and .surfref
// say nothing about execution.
bool Parser::opaque_initialiser(Variable* out) {
  static constexpr std::string_view kModes[] = {"wrap", "clamp_to_edge", "mirror", "clamp_to_border"};
  if (!expect('{')) return false;
  Initial value;
  while (!failed() && !token_.is('}')) {
    std::string_view property;
    if (!name(&property) || !expect('=')) return false;
    const std::string_view word = token_.text == "clamp_ogl" ? kModes[1] : token_.text;
    const uint64_t number = token_.value;
    advance();
    if (property.starts_with("addr_mode_") && property.size() == 11 && property[10] >= '0' && property[10] <= '2') {
      const auto mode = std::find(std::begin(kModes), std::end(kModes), word);
      if (mode == std::end(kModes)) return fail("unknown address mode '" + std::string(word) + "'");
      value.bits |= static_cast<uint64_t>(mode - kModes) << (2 * (property[10] - '0'));
    } else if (property == "filter_mode") {
      value.bits |= word == "linear" ? uint64_t{1} << 6 : 0;
    } else if (property == "force_unnormalized_coords") {
      value.bits |= number != 0 ? uint64_t{1} << 7 : 0;
    }
    if (!accept(',')) break;
  }
  if (out->type == Type::kSamplerref) out->initial.push_back(value);
  return expect('}');
}

bool Parser::initialiser(Variable* out) {
  if (out->type == Type::kTexref || out->type == Type::kSurfref || out->type == Type::kSamplerref) {
    return opaque_initialiser(out);
  }
  if (token_.is('{')) {
    int depth = 0;
    do {
      if (accept('{')) {
        ++depth;
      } else if (accept('}')) {
        --depth;
      } else if (!accept(',') && !initial_value(out)) {
        return false;
      }
    } while (depth > 0 && !failed());
  } else if (!initial_value(out)) {
    return false;
  }
  out->bytes = std::max<uint64_t>(out->bytes, out->initial.size() * bytes_of(out->type));
  return !failed();
}

bool Parser::initial_value(Variable* out) {
  Initial value;
  Operand o;
  if (token_.kind == Token::Kind::kInteger || token_.is('-') || token_.kind == Token::Kind::kReal ||
      token_.kind == Token::Kind::kReal32) {
    if (!literal(&o, accept('-'))) return false;
    value.bits = o.bits;
    if (o.kind == Operand::Kind::kReal && out->type == Type::kF32) {
      double d = 0;
      __builtin_memcpy(&d, &o.bits, 8);
      const float f = static_cast<float>(d);
      value.bits = 0;
      __builtin_memcpy(&value.bits, &f, 4);
    }
    if (accept('(')) {  // 0xFF00(symbol): one byte of an address
      value.mask = value.bits;
      value.bits = 0;
      if (!name(&value.symbol)) return false;
      if (value.symbol == "generic") {
        if (!expect('(') || !name(&value.symbol) || !expect(')')) return false;
      }
      int64_t addend = 0;
      if (!offset(&addend) || !expect(')')) return false;
      value.bits = static_cast<uint64_t>(addend);
    }
  } else {
    if (!name(&value.symbol)) return false;
    if (value.symbol == "generic" && (!expect('(') || !name(&value.symbol) || !expect(')'))) return false;
    int64_t addend = 0;
    if (!offset(&addend)) return false;
    value.bits = static_cast<uint64_t>(addend);
  }
  out->initial.push_back(value);
  return true;
}

bool Parser::parameters(std::vector<Variable>* out) {
  if (!accept('(')) return true;
  while (!failed() && !token_.is(')')) {
    const Space space = token_.dot("reg") ? Space::kRegister : Space::kParam;
    if (!token_.dot("reg") && !token_.dot("param")) return fail("expected a parameter");
    advance();
    Variable v;
    v.space = space;
    v.line = token_.line;
    bool is_array = false;
    if (!variable_header(&v)) return false;
    if (v.type == Type::kNone) return fail("expected a type before '" + std::string(token_.text) + "'");
    if (token_.text == "_") {
      advance();
      if (!dimensions(&v, &is_array)) return false;
    } else if (!name(&v.name) || !dimensions(&v, &is_array)) {
      return false;
    }
    const uint32_t size = bytes_of(v.type);
    // `.ptr .align` speaks of what the pointer points at.
    v.align = is_array ? std::max(v.align, size) : size;
    out->push_back(v);
    if (!accept(',')) break;
  }
  return expect(')');
}

bool Parser::function_attributes(Function* out) {
  while (token_.kind == Token::Kind::kDot) {
    const std::string_view word = token_.text;
    const bool threads = word == "maxntid" || word == "reqntid";
    advance();
    uint64_t product = 1;
    std::vector<uint32_t> list;
    while (token_.kind == Token::Kind::kInteger || token_.kind == Token::Kind::kString || token_.is(',')) {
      if (token_.kind == Token::Kind::kInteger) {
        product *= token_.value;
        list.push_back(static_cast<uint32_t>(token_.value));
      }
      advance();
    }
    if (token_.is('(')) {
      while (token_.kind != Token::Kind::kEnd && !token_.is(')')) advance();
      if (!expect(')')) return false;
    }
    if (threads) out->max_threads = static_cast<uint32_t>(std::min<uint64_t>(product, 1024));
    for (size_t i = 0; word == "reqnctapercluster" && i < 3; ++i) out->cluster[i] = i < list.size() ? list[i] : 1;
    if (word == "pragma") accept(';');
  }
  return !failed();
}

bool Parser::function(bool entry, Linkage linkage) {
  auto f = std::make_unique<Function>();
  f->entry = entry;
  f->linkage = linkage;
  while (token_.dot("attribute")) {
    while (token_.kind != Token::Kind::kEnd && !token_.is(')')) advance();
    if (!expect(')')) return false;
  }
  f->line = token_.line;
  if (token_.is('(') && !parameters(&f->returns)) return false;
  if (!name(&f->name)) return false;
  function_ = f.get();
  const bool header = parameters(&f->params) && function_attributes(f.get());
  if (!header) return false;
  if (token_.is('{')) {
    f->has_body = true;
    f->source = token_.text;
    f->source_line = token_.line;
    if (!body()) return false;
    (*visit_)(*module_, *f);
    f->registers = {};
    f->variables = {};
    f->body = {};
    f->tables = {};
  } else if (!expect(';')) {
    return false;
  }
  function_ = nullptr;
  const auto [at, fresh] = module_->symbols[0].functions.emplace(f->name, module_->functions.size());
  if (fresh) {
    module_->functions.push_back(std::move(f));
    return true;
  }
  std::unique_ptr<Function>& known = module_->functions[at->second];
  if (known->has_body && f->has_body) return fail("duplicate definition of '" + std::string(f->name) + "'");
  if (!f->has_body) return true;
  // A declaration before may have said who sees it.
  if (f->linkage == Linkage::kLocal && known->linkage != Linkage::kExtern) f->linkage = known->linkage;
  known = std::move(f);
  return true;
}

bool Parser::registers() {
  Variable header;
  if (!variable_header(&header)) return false;
  if (header.type == Type::kNone) return fail("expected a type before '" + std::string(token_.text) + "'");
  Scope& scope = scopes_[scope_];
  do {
    std::string_view id;
    if (!name(&id)) return false;
    if (accept('<')) {
      uint64_t count = 0;
      if (!number(&count) || !expect('>')) return false;
      scope.ranges[id] = {header.type, count};
    } else {
      scope.registers[id] = static_cast<uint32_t>(function_->registers.size());
      function_->registers.push_back(header.type);
    }
  } while (accept(','));
  return expect(';');
}

bool Parser::local_variables(Space space) {
  Variable header;
  if (!variable_header(&header)) return false;
  do {
    Variable v;
    v.type = header.type;
    v.align = header.align;
    if (!variable(space, false, &v)) return false;
    scopes_[scope_].variables[v.name] = static_cast<uint32_t>(function_->variables.size());
    function_->variables.push_back(v);
  } while (accept(','));
  return expect(';');
}

std::unique_ptr<Module> parse(std::string_view text, const FunctionVisitor& visit, std::string* error) {
  auto module = std::make_unique<Module>();
  module->text = text;
  Parser parser(*module, visit, error);
  if (!parser.module()) return nullptr;
  return module;
}

std::unique_ptr<Function> parse_body(const Function& head, std::string* error) {
  auto function = std::make_unique<Function>(head);
  Parser parser(head, function.get(), error);
  if (!parser.body()) return nullptr;
  return function;
}

}  // namespace softgpu::ptx

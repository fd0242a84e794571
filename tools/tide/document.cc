#include "tools/tide/document.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/log.h"

namespace tide::cli {
namespace {

constexpr int kDepthMax = 64;

Outcome read_file(const std::string& path, std::string* text) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  text->resize(kDocumentBytesMax + 1);
  file.read(text->data(), std::streamsize(text->size()));
  text->resize(size_t(file.gcount()));
  if (!file.is_open() || file.bad())
    return Outcome::fail(path + ": cannot be read: " + strerror(errno == 0 ? EIO : errno));
  if (text->size() > kDocumentBytesMax)
    return Outcome::fail(path + format(": is larger than %zu MiB", kDocumentBytesMax >> 20));
  return {};
}

// The loader takes quadratic time for what is nested deeply, and with aliases a document can contain itself.
Outcome check_depth(const std::string& path, const std::string& text) {
  yaml_parser_t parser;
  if (yaml_parser_initialize(&parser) == 0) return Outcome::fail("out of memory");
  yaml_parser_set_input_string(&parser, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  Outcome outcome;
  int depth = 0;
  for (bool more = true; more && outcome.ok();) {
    yaml_event_t event;
    if (yaml_parser_parse(&parser, &event) == 0) break;  // the loader says it
    const bool begins = event.type == YAML_SEQUENCE_START_EVENT || event.type == YAML_MAPPING_START_EVENT;
    const bool ends = event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT;
    depth += begins ? 1 : ends ? -1 : 0;
    if (event.type == YAML_ALIAS_EVENT) {
      outcome = Outcome::fail(format("%s:%zu:%zu: aliases (*name) are not read; write what it stands for", path.c_str(),
                                     event.start_mark.line + 1, event.start_mark.column + 1));
    }
    if (depth > kDepthMax) {
      outcome = Outcome::fail(format("%s:%zu:%zu: more than %d levels", path.c_str(), event.start_mark.line + 1,
                                     event.start_mark.column + 1, kDepthMax));
    }
    more = event.type != YAML_STREAM_END_EVENT;
    yaml_event_delete(&event);
  }
  yaml_parser_delete(&parser);
  return outcome;
}

}  // namespace

bool Node::is_null() const {
  const std::string value = text();
  const bool plain = node_->type == YAML_SCALAR_NODE && node_->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  return plain && (value.empty() || value == "null" || value == "~");
}

std::string Node::text() const {
  if (node_ == nullptr || node_->type != YAML_SCALAR_NODE) return "";
  return std::string(reinterpret_cast<const char*>(node_->data.scalar.value), node_->data.scalar.length);
}

bool Node::number(double* value) const {
  const std::string from = text();
  char* end = nullptr;
  const double number = strtod(from.c_str(), &end);
  if (from.empty() || end != from.c_str() + from.size() || !std::isfinite(number)) return false;
  *value = number;
  return true;
}

Node Node::operator[](const char* key) const {
  for (const auto& [name, value] : members()) {
    if (name == key) return value;
  }
  return {};
}

std::vector<std::pair<std::string, Node>> Node::members() const {
  std::vector<std::pair<std::string, Node>> members;
  if (!is_map()) return members;
  for (auto* pair = node_->data.mapping.pairs.start; pair < node_->data.mapping.pairs.top; ++pair) {
    members.emplace_back(Node(document_, yaml_document_get_node(document_, pair->key)).text(),
                         Node(document_, yaml_document_get_node(document_, pair->value)));
  }
  return members;
}

std::vector<Node> Node::items() const {
  std::vector<Node> items;
  if (!is_list()) return items;
  for (auto* item = node_->data.sequence.items.start; item < node_->data.sequence.items.top; ++item)
    items.emplace_back(document_, yaml_document_get_node(document_, *item));
  return items;
}

Documents::~Documents() {
  for (yaml_document_t& document : documents_) yaml_document_delete(&document);
}

Outcome Documents::read(const std::string& path) {
  std::string text;
  Outcome outcome = read_file(path, &text);
  if (outcome.ok()) outcome = check_depth(path, text);
  if (!outcome.ok()) return outcome;
  yaml_parser_t parser;
  if (yaml_parser_initialize(&parser) == 0) return Outcome::fail("out of memory");
  yaml_parser_set_input_string(&parser, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  while (true) {
    yaml_document_t& document = documents_.emplace_back();
    if (yaml_parser_load(&parser, &document) == 0) {
      documents_.pop_back();
      outcome = Outcome::fail(format("%s:%zu:%zu: %s", path.c_str(), parser.problem_mark.line + 1,
                                     parser.problem_mark.column + 1, parser.problem == nullptr ? "?" : parser.problem));
      break;
    }
    if (yaml_document_get_root_node(&document) != nullptr) continue;
    yaml_document_delete(&document);  // the end
    documents_.pop_back();
    break;
  }
  yaml_parser_delete(&parser);
  return outcome;
}

std::vector<Node> Documents::roots() {
  std::vector<Node> roots;
  for (yaml_document_t& document : documents_) roots.emplace_back(&document, yaml_document_get_root_node(&document));
  return roots;
}

}  // namespace tide::cli

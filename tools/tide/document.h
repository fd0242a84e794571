#pragma once

// YAML as a tree with lines, for importers; JSON, too, which YAML contains. Nothing is copied or expanded, so a file
// costs no more than its own size.

#include <yaml.h>

#include <cstdint>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "base/outcome.h"

namespace tide::cli {

inline constexpr size_t kDocumentBytesMax = 16u << 20;

// Something in a document that outlives it. One that is not there has no members.
class Node {
 public:
  Node() = default;
  Node(yaml_document_t* document, yaml_node_t* node) : document_(document), node_(node) {}

  bool there() const { return node_ != nullptr && !is_null(); }
  bool is_map() const { return node_ != nullptr && node_->type == YAML_MAPPING_NODE; }
  bool is_list() const { return node_ != nullptr && node_->type == YAML_SEQUENCE_NODE; }
  uint32_t line() const { return node_ == nullptr ? 0 : uint32_t(node_->start_mark.line) + 1; }
  std::string text() const;                // of a scalar; else empty
  bool number(double* value) const;        // false: it is none, or not finite
  Node operator[](const char* key) const;  // of a map
  std::vector<std::pair<std::string, Node>> members() const;
  std::vector<Node> items() const;  // of a list

 private:
  bool is_null() const;
  yaml_document_t* document_ = nullptr;
  yaml_node_t* node_ = nullptr;
};

class Documents {
 public:
  Documents() = default;
  ~Documents();
  Documents(const Documents&) = delete;
  Documents& operator=(const Documents&) = delete;

  // The error has the path, and line and column where there are any.
  Outcome read(const std::string& path);
  std::vector<Node> roots();

 private:
  std::list<yaml_document_t> documents_;
};

}  // namespace tide::cli

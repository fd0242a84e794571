#pragma once

// One description of a struct's members serves the control connection and --json: the struct has
// `template <class F> void fields(F& f)`, which calls f("name", member) for each of them.

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "tools/tide/json.h"

namespace tide::fabric {

inline constexpr uint32_t kListMax = 4096;  // of what a peer may send: GIDs of all ports, with room

class Packer {
 public:
  void operator()(const char*, const std::string& value) {
    number(value.size());
    out += value;
  }
  template <class T>
  void operator()(const char*, const T& value) {
    if constexpr (std::is_arithmetic_v<T>) {
      number(uint64_t(value));
    } else {
      const_cast<T&>(value).fields(*this);
    }
  }
  void operator()(const char*, const double& value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    number(bits);
  }
  template <class T>
  void operator()(const char* name, const std::vector<T>& values) {
    number(values.size());
    for (const T& value : values) (*this)(name, value);
  }
  std::string out;

 private:
  void number(uint64_t value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }
};

// Of what came over the wire: `ok` is false when it was too short or a count absurd; members are then partly set.
class Unpacker {
 public:
  explicit Unpacker(const std::string& in) : in_(in) {}
  bool done() const { return ok && at_ == in_.size(); }
  void operator()(const char*, std::string& value) {
    const uint64_t bytes = number();
    ok = ok && bytes <= in_.size() - at_;
    if (!ok) return;
    value = in_.substr(at_, bytes);
    at_ += bytes;
  }
  template <class T>
  void operator()(const char*, T& value) {
    if constexpr (std::is_arithmetic_v<T>) {
      value = T(number());
    } else {
      value.fields(*this);
    }
  }
  void operator()(const char*, double& value) {
    const uint64_t bits = number();
    memcpy(&value, &bits, sizeof value);
  }
  template <class T>
  void operator()(const char* name, std::vector<T>& values) {
    const uint64_t count = number();
    ok = ok && count <= kListMax;
    values.clear();
    for (uint64_t i = 0; ok && i < count; ++i) (*this)(name, values.emplace_back());
  }
  bool ok = true;

 private:
  uint64_t number() {
    uint64_t value = 0;
    ok = ok && in_.size() - at_ >= sizeof value;
    if (!ok) return 0;
    memcpy(&value, in_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  const std::string& in_;
  size_t at_ = 0;
};

// Members of the open object.
class JsonFields {
 public:
  explicit JsonFields(cli::Json& json) : json_(json) {}
  template <class T>
  void operator()(const char* name, const T& value) {
    json_.key(name);
    write(value);
  }

 private:
  void write(const std::string& value) { json_.text(value); }
  void write(bool value) { json_.boolean(value); }
  void write(double value) { json_.number(value); }
  template <class T>
  void write(const std::vector<T>& values) {
    json_.list();
    for (const T& value : values) write(value);
    json_.end();
  }
  template <class T>
  void write(const T& value) {
    if constexpr (std::is_signed_v<T>) {
      json_.number(int64_t(value));
    } else if constexpr (std::is_arithmetic_v<T>) {
      json_.number(uint64_t(value));
    } else {
      json_.object();
      const_cast<T&>(value).fields(*this);
      json_.end();
    }
  }
  cli::Json& json_;
};

template <class T>
std::string pack(const T& value) {
  Packer packer;
  packer("", value);
  return packer.out;
}

template <class T>
bool unpack(const std::string& in, T* value) {
  Unpacker unpacker(in);
  unpacker("", *value);
  return unpacker.done();
}

}  // namespace tide::fabric

#pragma once

#include <kj/exception.h>

#include <string>

namespace tide {

// What the far side said, without the machinery's own words around it.
inline std::string remote_error(const kj::Exception& exception) {
  std::string text = exception.getDescription().cStr();
  constexpr const char kPrefix[] = "remote exception: ";
  while (text.rfind(kPrefix, 0) == 0) text.erase(0, sizeof kPrefix - 1);
  return text;
}

// Why an address cannot be reached, or listened on, without the machinery's own words around it.
inline std::string network_error(const kj::Exception& exception) {
  if (exception.getType() == kj::Exception::Type::OVERLOADED) return "it does not answer";
  std::string text = exception.getDescription().cStr();
  for (const std::string before : {"gai_strerror(status) = ", "): "}) {
    if (const size_t at = text.find(before); at != std::string::npos) text.erase(0, at + before.size());
  }
  return text.substr(0, text.find(';'));
}

// An error to hand to the far side: one sentence for a person.
inline kj::Exception error_for_caller(const std::string& text) {
  return kj::Exception(kj::Exception::Type::FAILED, "", 0, kj::heapString(text.c_str()));
}

}  // namespace tide

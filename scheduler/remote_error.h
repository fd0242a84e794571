#pragma once

#include <kj/exception.h>

#include <string>

#include "base/versions.h"
#include "scheduler/control.capnp.h"

namespace tide {

// What the far side said, without the machinery's own words around it.
inline std::string remote_error(const kj::Exception& exception) {
  // Only who has no entrance lacks anything that we ask for.
  if (exception.getType() == kj::Exception::Type::UNIMPLEMENTED) {
    return versions_differ({"the scheduler", 1}, {"this side", control::PROTOCOL}, "control protocol");
  }
  std::string text = exception.getDescription().cStr();
  constexpr const char kPrefix[] = "remote exception: ";
  while (text.rfind(kPrefix, 0) == 0) text.erase(0, sizeof kPrefix - 1);
  return text;
}

// What the system said, without the machinery's own words around it.
inline std::string system_error(const kj::Exception& exception) {
  std::string text = remote_error(exception);
  for (const std::string before : {"gai_strerror(status) = ", "): "}) {
    if (const size_t at = text.find(before); at != std::string::npos) text.erase(0, at + before.size());
  }
  return text.substr(0, text.find(';'));
}

// Why an address cannot be reached, or listened on.
inline std::string network_error(const kj::Exception& exception) {
  const bool late = exception.getType() == kj::Exception::Type::OVERLOADED;
  return late ? "it does not answer" : system_error(exception);
}

// What a scheduler says that does not lead.
inline std::string not_the_leader(const std::string& leader) {
  return leader.empty() ? "this scheduler is not the leader, and none is at present; try again in a few seconds"
                        : "this scheduler is not the leader; it is at " + leader;
}

// An error to hand to the far side: one sentence for a person.
inline kj::Exception error_for_caller(const std::string& text) {
  return kj::Exception(kj::Exception::Type::FAILED, "", 0, kj::heapString(text.c_str()));
}

}  // namespace tide

// In place of the verbs transport where there was no infiniband/verbs.h to build it with.

#include "transport/verbs.h"

namespace tide {
namespace {

Outcome absent() {
  return Outcome::fail("this Tidepool was built without libibverbs-dev and has no transport verbs; use ucx");
}

}  // namespace

Outcome verbs_connect(Region, int, const char*, std::unique_ptr<Link>*) { return absent(); }
Outcome verbs_accept(int, int, std::string*, std::unique_ptr<Link>*) { return absent(); }
Outcome verbs_usable() { return absent(); }

}  // namespace tide

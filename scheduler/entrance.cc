#include "scheduler/entrance.h"

#include "base/versions.h"
#include "scheduler/remote_error.h"

namespace tide::sched {
namespace {

kj::Exception other_version(const char* caller, uint32_t version, uint32_t ours) {
  return error_for_caller(versions_differ({caller, version}, {"the scheduler", ours}, "control protocol"));
}

}  // namespace

kj::Promise<void> Entrance::enter(EnterContext context) {
  const auto p = context.getParams();
  const char* caller = p.getCaller() == control::Caller::AGENT ? "this agent" : "this tide";
  if (p.getProtocol() != protocol_) return other_version(caller, p.getProtocol(), protocol_);
  entered_(p.getCaller());
  if (const Elsewhere elsewhere = elsewhere_ ? elsewhere_() : Elsewhere(); elsewhere.is) {
    context.getResults().setFollower(true);
    context.getResults().setLeader(elsewhere.leader);
    context.getResults().setPool(control::Pool::Client(error_for_caller(not_the_leader(elsewhere.leader))));
    return kj::READY_NOW;
  }
  context.getResults().setPool(pool_);
  return kj::READY_NOW;
}

// Version 1 took what it met here for the pool.
capnp::Capability::Server::DispatchCallResult Entrance::dispatchCall(
    uint64_t interface, uint16_t method, capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) {
  if (interface == capnp::typeId<control::Pool>()) return {other_version("this program", 1, protocol_), false};
  return control::Entrance::Server::dispatchCall(interface, method, context);
}

}  // namespace tide::sched

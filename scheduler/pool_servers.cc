// Servers, for administrators: drain, undrain, and how far that is.

#include <algorithm>

#include "base/log.h"
#include "scheduler/pool_service.h"
#include "scheduler/remote_error.h"

namespace tide::sched {
namespace {

void fill_left(control::Left::Builder out, const Left& left) {
  out.setJob(left.job);
  out.setKind(control::LeftKind(left.kind));
  auto vgpus = out.initVgpus(uint32_t(left.vgpus.size()));
  for (uint32_t i = 0; i < vgpus.size(); ++i) vgpus.set(i, left.vgpus[i]);
  out.setDoing(control::LeftDoing(left.doing));
  out.setReason(left.reason);
  out.setNext(left.next);
}

void fill_server(const Ledger& ledger, const std::string& name, const std::vector<Left>& left,
                 control::ServerState::Builder out) {
  out.setName(name);
  const auto server = ledger.servers.find(name);
  out.setKnown(server != ledger.servers.end());
  out.setOnline(server != ledger.servers.end() && server->second.online);
  out.setGpus(server != ledger.servers.end() ? uint32_t(server->second.gpus.size()) : 0);
  if (const auto traits = ledger.traits.find(name); traits != ledger.traits.end()) {
    fill_texts(out.initLabels(uint32_t(traits->second.labels.size())), traits->second.labels);
    out.setNetworkSwitch(traits->second.network_switch);
  }
  const auto drain = ledger.drains.find(name);
  out.setDrainingMs(drain != ledger.drains.end() ? drain->second : 0);
  auto list = out.initLeft(uint32_t(left.size()));
  for (uint32_t i = 0; i < list.size(); ++i) fill_left(list[i], left[i]);
}

std::string names_of(const Ledger& ledger) {
  constexpr size_t kShown = 10;
  std::string text;
  size_t count = 0;
  for (const auto& [name, server] : ledger.servers) {
    if (count++ < kShown) text += (text.empty() ? "" : ", ") + name;
  }
  if (count > kShown) text += format(" and %zu more", count - kShown);
  return text.empty() ? "the pool has none" : "the pool's are " + text;
}

}  // namespace

void fill_texts(capnp::List<capnp::Text>::Builder list, const std::set<std::string>& texts) {
  uint32_t i = 0;
  for (const std::string& text : texts) list.set(i++, text);
}

kj::Promise<void> PoolService::drain(DrainContext context) {
  const std::string name = context.getParams().getServer().cStr();
  const bool on = context.getParams().getDraining();
  const bool known = core_.ledger.server(name) != nullptr;
  if (!known && !core_.ledger.is_draining(name))
    return error_for_caller("there is no server " + name + "; " + names_of(core_.ledger));
  const Outcome done = core_.reconciler.drain(name, on);
  if (!done.ok()) return error_for_caller(done.message());
  fill_server(core_.ledger, name, core_.reconciler.left()[name], context.getResults().initServer());
  return kj::READY_NOW;
}

kj::Promise<void> PoolService::servers(ServersContext context) {
  std::set<std::string> names;
  for (const auto& [name, server] : core_.ledger.servers.read()) names.insert(name);
  for (const auto& [name, since] : core_.ledger.drains) names.insert(name);
  auto left = core_.reconciler.left();
  auto list = context.getResults().initServers(uint32_t(names.size()));
  uint32_t i = 0;
  for (const std::string& name : names) fill_server(core_.ledger, name, left[name], list[i++]);
  return kj::READY_NOW;
}

}  // namespace tide::sched

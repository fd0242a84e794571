#include "tools/tide/servers.h"

#include <set>

#include "base/log.h"

namespace tide::cli {
namespace {

const char* kind_name(control::LeftKind kind) {
  switch (kind) {
    case control::LeftKind::GPU:
      return "gpu";
    case control::LeftKind::PARKED:
      return "parked";
    case control::LeftKind::GUARD:
      return "checkpoint";
  }
  return "?";
}

const char* doing_name(control::LeftDoing doing) {
  switch (doing) {
    case control::LeftDoing::LEAVES:
      return "leaves";
    case control::LeftDoing::RETRIES:
      return "retries";
    case control::LeftDoing::STAYS:
      return "stays";
  }
  return "?";
}

}  // namespace

std::string left_name(control::Left::Reader left) {
  std::string vgpus;
  for (const uint32_t v : left.getVgpus()) vgpus += (vgpus.empty() ? "" : ",") + std::to_string(v);
  std::string text = left.getKind() == control::LeftKind::GUARD ? "checkpoint of job " : "job ";
  text += std::string(left.getJob()) + ", virtual GPU" + (left.getVgpus().size() == 1 ? " " : "s ") + vgpus;
  return left.getKind() == control::LeftKind::PARKED ? text + ", kept without a GPU" : text;
}

std::string left_text(control::Left::Reader left) {
  std::string text = left_name(left) + ": " + doing_name(left.getDoing());
  if (left.getReason().size() != 0) text += ": " + std::string(left.getReason());
  return text;
}

void add_server(Json& json, control::ServerState::Reader server) {
  json.object().add("server", std::string(server.getName())).add("known", server.getKnown());
  json.add("online", server.getOnline()).add("gpus", server.getGpus());
  json.key("labels").list();
  for (const auto label : server.getLabels()) json.text(label);
  json.end().add("switch", std::string(server.getNetworkSwitch()));
  const bool draining = server.getDrainingMs() != 0;
  json.add("draining", draining).add("drained", draining && server.getLeft().size() == 0);
  json.add("draining_since_ms", server.getDrainingMs()).key("left").list();
  for (const auto left : server.getLeft()) {
    json.object().add("job", std::string(left.getJob())).add("kind", std::string(kind_name(left.getKind())));
    json.key("vgpus").list();
    for (const uint32_t v : left.getVgpus()) json.number(uint64_t(v));
    json.end().add("doing", std::string(doing_name(left.getDoing())));
    json.add("reason", std::string(left.getReason())).add("next", std::string(left.getNext())).end();
  }
  json.end().end();
}

std::string drains_text(capnp::List<control::ServerState>::Reader servers) {
  std::string text;
  for (const auto server : servers) {
    if (server.getDrainingMs() == 0) continue;
    std::set<std::string> jobs;
    for (const auto left : server.getLeft()) jobs.insert(left.getJob());
    const std::string rest =
        jobs.empty() ? "empty" : format("%zu job%s left", jobs.size(), jobs.size() == 1 ? "" : "s");
    text += (text.empty() ? "" : ", ") + std::string(server.getName()) + " (" + rest +
            (server.getKnown() ? ")" : ", not in the pool now)");
  }
  return text;
}

std::string labels_text(control::ServerState::Reader server) {
  std::string text;
  for (const auto label : server.getLabels()) text += (text.empty() ? "" : ", ") + std::string(label);
  if (server.getNetworkSwitch().size() != 0)
    text += (text.empty() ? "" : "; ") + std::string("switch ") + server.getNetworkSwitch().cStr();
  return text.empty() ? text : std::string(server.getName()) + ": " + text;
}

}  // namespace tide::cli

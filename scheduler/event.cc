#include "scheduler/event.h"

#include <capnp/message.h>
#include <capnp/serialize-packed.h>
#include <kj/io.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "scheduler/record.capnp.h"

namespace tide::sched {
namespace {

constexpr uint32_t kEventsRead = 1u << 20;  // more are damage
constexpr size_t kTextShown = 256;          // of a name or a reason
constexpr uint64_t kWordsMax = 16u << 20;

std::string text_of(capnp::Text::Reader text) { return {text.begin(), text.size()}; }
void put_text(const std::string& text, const std::function<void(capnp::Text::Reader)>& set) {
  size_t end = std::min(text.size(), kTextShown);
  while (end != 0 && end < text.size() && (uint8_t(text[end]) & 0xc0) == 0x80) --end;  // not within a character
  if (end != 0) set(text.substr(0, end).c_str());
}

void write(const Event& event, record::Event::Builder out) {
  out.setKind(uint8_t(event.kind));
  out.setJob(event.job);
  out.setAtMs(event.at_ms);
  put_text(event.queue, [&](auto text) { out.setQueue(text); });
  put_text(event.user, [&](auto text) { out.setUser(text); });
  put_text(event.name, [&](auto text) { out.setName(text); });
  put_text(event.text, [&](auto text) { out.setText(text); });
  put_text(event.gpu, [&](auto text) { out.setGpu(text); });
  put_text(event.model, [&](auto text) { out.setModel(text); });
  out.setVgpu(event.vgpu);
  out.setBefore(event.before);
  out.setAfter(event.after);
  out.setFromMs(event.from_ms);
  out.setHeldMs(event.held_ms);
  out.setUsedMs(event.used_ms);
  out.setPauseMs(event.pause_ms);
  out.setBytes(event.bytes);
  out.setStatus(event.status);
}

bool is_amount(double value) { return std::isfinite(value) && value >= 0; }

Event read(record::Event::Reader in) {
  KJ_REQUIRE(in.getKind() >= uint8_t(EventKind::kSubmitted) && in.getKind() <= uint8_t(EventKind::kCapacity));
  KJ_REQUIRE(is_amount(in.getHeldMs()) && is_amount(in.getUsedMs()) && is_amount(in.getPauseMs()));
  return {.kind = EventKind(in.getKind()),
          .job = in.getJob(),
          .at_ms = in.getAtMs(),
          .queue = text_of(in.getQueue()),
          .user = text_of(in.getUser()),
          .name = text_of(in.getName()),
          .text = text_of(in.getText()),
          .gpu = text_of(in.getGpu()),
          .model = text_of(in.getModel()),
          .vgpu = in.getVgpu(),
          .before = in.getBefore(),
          .after = in.getAfter(),
          .from_ms = in.getFromMs(),
          .held_ms = in.getHeldMs(),
          .used_ms = in.getUsedMs(),
          .pause_ms = in.getPauseMs(),
          .bytes = in.getBytes(),
          .status = in.getStatus()};
}

}  // namespace

const char* to_text(EventKind kind) {
  switch (kind) {
    case EventKind::kSubmitted:
      return "submitted";
    case EventKind::kStarted:
      return "started";
    case EventKind::kGrew:
      return "grew";
    case EventKind::kShrank:
      return "shrank";
    case EventKind::kMoved:
      return "moved";
    case EventKind::kSuspended:
      return "suspended";
    case EventKind::kResumed:
      return "resumed";
    case EventKind::kRecovered:
      return "recovered";
    case EventKind::kEnded:
      return "ended";
    case EventKind::kHeld:
      return "held";
    case EventKind::kCapacity:
      return "capacity";
  }
  return "";
}

Event submission_of(const JobRecord& job) {
  return {.kind = EventKind::kSubmitted,
          .job = job.number,
          .at_ms = job.submitted_ms,
          .queue = job.queue,
          .user = job.user,
          .name = job.name,
          .text = job.command,
          .after = job.gpus};
}

std::string to_bytes(const std::vector<Event>& events) {
  capnp::MallocMessageBuilder message;
  auto list = message.initRoot<record::Events>().initEvents(uint32_t(events.size()));
  for (uint32_t i = 0; i < list.size(); ++i) write(events[i], list[i]);
  kj::VectorOutputStream out;
  capnp::writePackedMessage(out, message);
  const auto bytes = out.getArray();
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}

Outcome from_bytes(const std::string& bytes, std::vector<Event>* events) {
  const bool thrown = kj::runCatchingExceptions([&] {
                        kj::ArrayInputStream in({reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()});
                        capnp::ReaderOptions options;
                        options.traversalLimitInWords = kWordsMax;
                        capnp::PackedMessageReader message(in, options);
                        std::vector<Event> read_so_far;
                        const auto list = message.getRoot<record::Events>().getEvents();
                        KJ_REQUIRE(list.size() <= kEventsRead);
                        for (const auto event : list) read_so_far.push_back(read(event));
                        *events = std::move(read_so_far);
                      }) != nullptr;
  return thrown ? Outcome::fail("these bytes are no events") : Outcome();
}

}  // namespace tide::sched

// A null call over a channel: a command without payload that asks for an answer, and the answer.

#include "tools/bench_transport/link_ping.h"

#include <unistd.h>

#include <cstring>

#include "transport/door.h"
#include "transport/ring.h"
#include "transport/wait.h"

namespace tide::bench {
namespace {

constexpr uint64_t kTimeoutUs = 5'000'000;

class LinkPing : public Ping {
 public:
  using Ping::Ping;
  ~LinkPing() override {
    link_.reset();
    if (region_.base != nullptr) destroy_region(fd_, region_);
  }
  Outcome open(const std::string& name);

 protected:
  bool round_trip() override {
    CommandHeader* header = commands_.reserve(0);
    if (header == nullptr) return false;
    header->call = 1;
    header->flags = kCommandAnswer;
    commands_.publish(header);
    const auto ready = [&] { return answers_.ready(); };
    if (wait_until(*link_, Side::kClient, ready, kTimeoutUs) != WaitResult::kReady) return false;
    Answer answer;
    if (answers_.next(&answer) != ReadState::kRecord) return false;
    answers_.consume(answer);
    return true;
  }

 private:
  int fd_ = -1;
  Region region_;
  std::unique_ptr<Link> link_;
  CommandWriter commands_;
  AnswerReader answers_;
};

Outcome LinkPing::open(const std::string& name) {
  const Transport* transport = find_transport(name.c_str());
  if (transport == nullptr) return Outcome::fail("there is no transport '" + name + "'");
  Outcome outcome = create_region(&fd_, &region_);
  if (outcome.ok()) outcome = send_frame(socket_, DoorType::kOpen, "", 0, fd_);
  DoorType type;
  std::string data;
  if (outcome.ok()) outcome = receive_frame(socket_, 10'000, &type, &data);
  if (outcome.ok() && type != DoorType::kOpened) outcome = Outcome::fail(data);
  if (outcome.ok()) outcome = transport->connect(region_, socket_, data.c_str(), &link_);
  if (!outcome.ok()) return outcome;
  socket_ = -1;  // the link's
  commands_ = CommandWriter(region_);
  answers_ = AnswerReader(region_);
  return {};
}

bool answer_one(Link& link, CommandReader& commands, AnswerWriter& answers) {
  const auto ready = [&] { return commands.ready(); };
  if (wait_until(link, Side::kWorker, ready) != WaitResult::kReady) return false;
  Command command;
  if (commands.next(&command) != ReadState::kRecord) return false;
  AnswerHeader* header = answers.reserve(0);
  if (header == nullptr) return false;
  header->kind = uint16_t(AnswerKind::kResult);
  header->sequence = command.header.sequence;
  answers.publish(header);
  commands.consume(command);
  notify(link, Side::kWorker);
  return true;
}

}  // namespace

Outcome start_link_ping(const std::string& transport, int socket, std::unique_ptr<Ping>* ping) {
  auto made = std::make_unique<LinkPing>(socket);
  const Outcome outcome = made->open(transport);
  if (outcome.ok()) *ping = std::move(made);
  return outcome;
}

int serve_link_ping(const std::string& name, int socket) {
  const Transport* transport = find_transport(name.c_str());
  DoorType type;
  std::string payload, data;
  int fd = -1;
  std::unique_ptr<Link> link;
  if (transport == nullptr || !receive_frame(socket, 10'000, &type, &payload, &fd).ok()) return 1;
  const Outcome outcome = transport->accept(socket, fd, &data, &link);
  const std::string& words = outcome.ok() ? data : outcome.message();
  const DoorType answer = outcome.ok() ? DoorType::kOpened : DoorType::kRefused;
  if (!send_frame(socket, answer, words.c_str(), words.size() + 1).ok() || !outcome.ok()) return 1;
  if (wait_until(
          *link, Side::kWorker, [&] { return link->ready(); }, 2 * kTimeoutUs) != WaitResult::kReady)
    return 1;
  CommandReader commands(link->region());
  AnswerWriter answers(link->region());
  while (answer_one(*link, commands, answers)) {
  }
  return 0;
}

}  // namespace tide::bench

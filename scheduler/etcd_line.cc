#include "scheduler/etcd_line.h"

#include <kj/async-io.h>
#include <kj/compat/http.h>

#include <future>

#include "scheduler/remote_error.h"

namespace tide::sched {
namespace {

constexpr uint64_t kAnswerBytesMax = 64 << 20;
constexpr auto kWatchAgain = 300 * kj::MILLISECONDS;

kj::Exception failed(const std::string& why) {
  return kj::Exception(kj::Exception::Type::FAILED, "", 0, kj::heapString(why.c_str()));
}

}  // namespace

class EtcdLine::Loop final : private kj::TaskSet::ErrorHandler {
 public:
  Loop(kj::AsyncIoContext& io, const std::vector<std::string>& members)
      : io_(io), quit_(kj::newPromiseAndFulfiller<void>()), tasks_(*this) {
    for (const std::string& address : members) members_.push_back({.address = address, .stream = {}, .client = {}});
  }

  kj::Promise<Answer> post(std::string path, std::string body, bool once) {
    auto ask = kj::heap<Ask>();
    ask->path = std::move(path);
    ask->body = std::move(body);
    ask->once = once;
    Ask& asked = *ask;
    return timer().timeoutAfter(kEtcdPatienceMs * kj::MILLISECONDS, try_member(asked)).attach(kj::mv(ask));
  }

  void watch(std::string path, std::string body, const std::shared_ptr<std::atomic<bool>>& flag) {
    auto ask = kj::heap<Ask>();
    ask->path = std::move(path);
    ask->body = std::move(body);
    Ask& asked = *ask;
    tasks_.add(listen(asked, flag).attach(kj::mv(ask)));
  }

  void quit() { quit_.fulfiller->fulfill(); }
  kj::Promise<void> done() { return kj::mv(quit_.promise); }

 private:
  struct Member {
    std::string address;
    kj::Own<kj::AsyncIoStream> stream;
    kj::Own<kj::HttpClient> client;
  };
  struct Ask {
    std::string path, body;
    bool once = false;
    bool sent = false;
    uint32_t tries = 0;
    Member own = {};  // of a watch
  };

  void taskFailed(kj::Exception&&) override {}
  kj::Timer& timer() { return io_.provider->getTimer(); }

  kj::Promise<void> connect(Member& member) {
    if (member.client.get() != nullptr) return kj::READY_NOW;
    auto connecting =
        io_.provider->getNetwork().parseAddress(member.address).then([](kj::Own<kj::NetworkAddress> address) {
          auto connected = address->connect();
          return connected.attach(kj::mv(address));
        });
    return timer()
        .timeoutAfter(kEtcdConnectMs * kj::MILLISECONDS, kj::mv(connecting))
        .then([this, &member](kj::Own<kj::AsyncIoStream> stream) {
          member.stream = kj::mv(stream);
          member.client = kj::newHttpClient(table_, *member.stream);
        });
  }

  static void drop(Member& member) {
    member.client = nullptr;
    member.stream = nullptr;
  }

  kj::Promise<kj::HttpClient::Response> send(Member& member, const Ask& ask) {
    kj::HttpHeaders headers(table_);
    headers.set(kj::HttpHeaderId::HOST, member.address);
    headers.set(kj::HttpHeaderId::CONTENT_TYPE, "application/json");
    auto request = member.client->request(kj::HttpMethod::POST, ask.path, headers, ask.body.size());
    auto written = request.body->write(ask.body.data(), ask.body.size()).attach(kj::mv(request.body));
    return written.then([response = kj::mv(request.response)]() mutable { return kj::mv(response); });
  }

  kj::Promise<Answer> exchange(Member& member, const Ask& ask) {
    return send(member, ask).then([](kj::HttpClient::Response&& response) {
      const uint32_t status = response.statusCode;
      auto text = response.body->readAllText(kAnswerBytesMax);
      return text.attach(kj::mv(response.body)).then([status](kj::String&& body) -> kj::Promise<Answer> {
        if (status >= 500) return failed(body.cStr());
        return Answer{.status = status, .body = {body.begin(), body.size()}};
      });
    });
  }

  kj::Promise<Answer> try_member(Ask& ask) {
    Member& member = members_[preferred_];
    return connect(member)
        .then([this, &member, &ask] {
          ask.sent = true;
          return timer().timeoutAfter(kEtcdAnswerMs * kj::MILLISECONDS, exchange(member, ask));
        })
        .catch_([this, &member, &ask](kj::Exception&& e) -> kj::Promise<Answer> {
          drop(member);
          preferred_ = (preferred_ + 1) % members_.size();
          if (++ask.tries >= members_.size() || (ask.once && ask.sent)) {
            return failed(member.address + ": " + network_error(e));
          }
          ask.sent = false;
          return try_member(ask);
        });
  }

  kj::Promise<void> listen(Ask& ask, std::shared_ptr<std::atomic<bool>> flag) {
    ask.own.address = members_[(preferred_ + ask.tries++) % members_.size()].address;
    auto heard = connect(ask.own)
                     .then([this, &ask] { return send(ask.own, ask); })
                     .then([this, flag](kj::HttpClient::Response&& response) {
                       kj::AsyncInputStream& body = *response.body;
                       return hear(body, flag).attach(kj::mv(response.body));
                     });
    return heard.catch_([](kj::Exception&&) {}).then([this, &ask, flag]() -> kj::Promise<void> {
      drop(ask.own);
      *flag = true;
      if (flag.use_count() <= 1) return kj::READY_NOW;
      return timer().afterDelay(kWatchAgain).then([this, &ask, flag] { return listen(ask, flag); });
    });
  }

  kj::Promise<void> hear(kj::AsyncInputStream& body, std::shared_ptr<std::atomic<bool>> flag) {
    return body.tryRead(heard_, 1, sizeof heard_).then([this, &body, flag](size_t bytes) -> kj::Promise<void> {
      *flag = true;
      if (bytes == 0) return kj::READY_NOW;
      return hear(body, flag);
    });
  }

  kj::AsyncIoContext& io_;
  kj::HttpHeaderTable table_;
  std::vector<Member> members_;
  size_t preferred_ = 0;
  char heard_[4096];  // nobody reads it
  kj::PromiseFulfillerPair<void> quit_;
  kj::TaskSet tasks_;  // last: what they use falls after them
};

EtcdLine::EtcdLine(std::vector<std::string> members) : members_(std::move(members)) {
  std::promise<void> started;
  thread_ = kj::heap<kj::Thread>([this, &started] {
    auto io = kj::setupAsyncIo();
    Loop loop(io, members_);
    loop_ = &loop;
    executor_ = kj::getCurrentThreadExecutor().addRef();
    auto done = loop.done();
    started.set_value();
    done.wait(io.waitScope);
  });
  started.get_future().wait();
}

EtcdLine::~EtcdLine() {
  executor_->executeSync([this] { loop_->quit(); });
}

Outcome EtcdLine::post(const std::string& path, const std::string& body, bool once, Answer* answer) {
  std::string why;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 *answer = executor_->executeSync([&] { return loop_->post(path, body, once); });
               })) {
    why = network_error(*exception);
  }
  return why.empty() ? Outcome() : Outcome::fail(why);
}

std::shared_ptr<std::atomic<bool>> EtcdLine::watch(const std::string& path, const std::string& body) {
  auto flag = std::make_shared<std::atomic<bool>>(true);
  executor_->executeSync([&] { loop_->watch(path, body, flag); });
  return flag;
}

}  // namespace tide::sched

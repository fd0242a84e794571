// The greeting over UCX, spoken by hand: by clients and workers of other versions, by strangers, by noise.

#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <thread>

#include "base/hex.h"
#include "base/log.h"
#include "tests/transport/channel.h"
#include "transport/replica_link.h"
#include "transport/ucx/carrier.h"

namespace tide {
namespace {

constexpr uint64_t kPatienceNs = 10'000'000'000;

// Whoever is not of ours: sends what it likes, and keeps what it is told.
class Hand {
 public:
  Hand() {
    const Outcome created = UcxWorker::create(&worker_);
    EXPECT_TRUE(created.ok()) << created.message();
    for (const unsigned id : {kUcxHelloId, kUcxRefusalId}) EXPECT_TRUE(worker_->handle(id, on_message, this).ok());
  }
  ~Hand() {
    for (ucp_ep_h each : endpoints_) worker_->close(each, 0);
  }
  void connect(const std::string& address) {
    ucp_ep_h endpoint = nullptr;
    const Outcome outcome = worker_->connect(address, on_failure, this, &endpoint);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    endpoints_.push_back(endpoint);
  }
  std::string listen() {
    std::string address;
    const Outcome outcome = worker_->listen(&address, on_connection, this);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    return address;
  }
  void hang_up() {
    for (ucp_ep_h each : endpoints_) worker_->close(each, 200);
    endpoints_.clear();
  }
  void say(unsigned id, const void* header, size_t bytes) {
    ucp_request_param_t params{};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    params.flags = UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_EAGER;
    sent_.emplace_back(static_cast<const char*>(header), bytes);
    ucs_status_ptr_t request = ucp_am_send_nbx(endpoints_.back(), id, sent_.back().data(), bytes, nullptr, 0, &params);
    if (UCS_PTR_IS_PTR(request)) ucp_request_free(request);
  }
  bool progress() { return worker_->progress(); }
  // As a worker: what a hello is answered with.
  std::function<void()> answer;
  std::vector<std::pair<unsigned, std::string>> heard;
  uint32_t broken = 0;

 private:
  static ucs_status_t on_message(void* self, const void* header, size_t bytes, void*, size_t,
                                 const ucp_am_recv_param_t* param) {
    auto* hand = static_cast<Hand*>(self);
    hand->heard.emplace_back(bytes == sizeof(UcxRefusal) ? kUcxRefusalId : kUcxHelloId,
                             std::string(static_cast<const char*>(header), bytes));
    if (hand->answer == nullptr) return UCS_OK;
    hand->endpoints_.push_back(sender_of(param));
    hand->answer();
    hand->endpoints_.pop_back();
    return UCS_OK;
  }
  static void on_failure(void* self, ucp_ep_h, ucs_status_t) { ++static_cast<Hand*>(self)->broken; }
  static void on_connection(ucp_conn_request_h request, void* self) {
    auto* hand = static_cast<Hand*>(self);
    ucp_ep_h endpoint = nullptr;
    if (hand->worker_->accept(request, on_failure, self, &endpoint).ok()) hand->endpoints_.push_back(endpoint);
  }
  std::unique_ptr<UcxWorker> worker_;
  std::vector<ucp_ep_h> endpoints_;
  std::list<std::string> sent_;  // UCX may read it for a while
};

class UcxHellos : public testing::Test {
 protected:
  void SetUp() override {
    std::string data;
    const Outcome outcome = UcxCarrier::listen(&data, &worker_);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    data_ = data;
    address_ = data.substr(0, data.find('/'));
    ASSERT_TRUE(parse_hex(data.substr(data.find('/') + 1), right_.cookie, kUcxCookieBytes));
  }
  bool until(const std::function<bool()>& done, Hand* hand, Carrier* client = nullptr, uint64_t ns = kPatienceNs) {
    for (const uint64_t end = now_ns() + ns; !done();) {
      if (now_ns() > end) return false;
      worker_->progress(nullptr);
      if (hand != nullptr) hand->progress();
      if (client != nullptr) client->progress(nullptr);
    }
    return true;
  }
  // What a client that says this is told; kNothing: nothing but the end.
  UcxRefusal told(unsigned id, const void* header, size_t bytes) {
    Hand hand;
    hand.connect(address_);
    hand.say(id, header, bytes);
    UcxRefusal refusal;
    refusal.version = 0;
    EXPECT_TRUE(until([&] { return !hand.heard.empty() || hand.broken != 0; }, &hand));
    if (hand.heard.empty()) return refusal;
    EXPECT_EQ(hand.heard[0].first, kUcxRefusalId) << "it was let in";
    EXPECT_EQ(hand.heard[0].second.size(), sizeof refusal);
    memcpy(&refusal, hand.heard[0].second.data(), std::min(sizeof refusal, hand.heard[0].second.size()));
    return refusal;
  }
  void expect_the_client_gets_in() {
    std::unique_ptr<Carrier> client;
    const Outcome outcome = UcxCarrier::connect(data_, &client);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    const uint64_t begin = now_ns();
    ASSERT_TRUE(until([&] { return client->may_ping() || client->failure() != nullptr; }, nullptr, client.get()));
    EXPECT_EQ(client->failure(), nullptr) << client->failure();
    EXPECT_LT(now_ns() - begin, 1'000'000'000u);
    client->give_up();
  }

  std::unique_ptr<Carrier> worker_;
  std::string data_, address_;
  UcxHello right_;
};

TEST_F(UcxHellos, another_version_is_told_ours) {
  for (const uint32_t version : {kUcxVersion - 1, kUcxVersion + 1, 0u, ~0u}) {
    UcxHello hello = right_;
    hello.version = version;
    for (const size_t bytes : {sizeof hello, size_t{8}}) {
      const UcxRefusal refusal = told(kUcxHelloId, &hello, bytes);
      EXPECT_EQ(refusal.magic, kUcxMagic);
      EXPECT_EQ(refusal.version, kUcxVersion);
      EXPECT_EQ(UcxRefused(refusal.why), UcxRefused::kVersion);
    }
  }
  expect_the_client_gets_in();
}

TEST_F(UcxHellos, who_is_not_expected_is_told_so) {
  UcxHello other = right_;
  other.cookie[kUcxCookieBytes - 1] ^= 1;
  EXPECT_EQ(UcxRefused(told(kUcxHelloId, &other, sizeof other).why), UcxRefused::kCookie);
  other = right_;
  other.magic ^= 1;
  EXPECT_EQ(UcxRefused(told(kUcxHelloId, &other, sizeof other).why), UcxRefused::kMalformed);
  EXPECT_EQ(UcxRefused(told(kUcxHelloId, &right_, sizeof right_ - 1).why), UcxRefused::kMalformed);
  EXPECT_EQ(UcxRefused(told(kUcxHelloId, &right_, 3).why), UcxRefused::kMalformed);
  EXPECT_EQ(UcxRefused(told(kUcxParcelId, &right_, sizeof right_).why), UcxRefused::kMalformed);
  expect_the_client_gets_in();
}

TEST_F(UcxHellos, a_client_says_at_once_that_the_worker_is_of_another_version) {
  for (const uint32_t theirs : {kUcxVersion - 1, kUcxVersion + 1}) {
    for (const bool refuses : {true, false}) {
      Hand old;
      UcxRefusal refusal;
      UcxHello hello = right_;
      refusal.version = hello.version = theirs;
      refusal.why = uint32_t(UcxRefused::kVersion);
      old.answer = [&] {
        if (refuses) old.say(kUcxRefusalId, &refusal, sizeof refusal);
        if (!refuses) old.say(kUcxHelloId, &hello, sizeof hello);
      };
      std::unique_ptr<Carrier> client;
      ASSERT_TRUE(UcxCarrier::connect(old.listen() + "/" + hex(right_.cookie, kUcxCookieBytes), &client).ok());
      ASSERT_TRUE(until([&] { return client->failure() != nullptr; }, &old, client.get(), 2'000'000'000));
      EXPECT_EQ(
          client->failure(),
          format("the worker speaks version %u of Tidepool's protocol over UCX, this program version %u: update %s, "
                 "so that both are of one release",
                 theirs, kUcxVersion, theirs < kUcxVersion ? "the worker" : "this program"));
    }
  }
}

TEST_F(UcxHellos, strangers_keep_the_client_out_for_no_longer_than_a_moment) {
  Hand silent;
  for (int i = 0; i < 100; ++i) silent.connect(address_);
  ASSERT_FALSE(until([] { return false; }, &silent, nullptr, 500'000'000));
  expect_the_client_gets_in();
}

TEST_F(UcxHellos, strangers_who_left_take_no_room) {
  for (int i = 0; i < 10; ++i) {
    Hand leaves;
    leaves.connect(address_);
    ASSERT_FALSE(until([] { return false; }, &leaves, nullptr, 20'000'000));
    leaves.hang_up();
  }
  expect_the_client_gets_in();
}

TEST_F(UcxHellos, sockets_that_say_nothing_or_noise_keep_nobody_out) {
  std::vector<int> sockets(200, -1);
  const std::string noise(3000, 'n');
  for (size_t i = 0; i < sockets.size(); ++i) {
    ASSERT_TRUE(connect_tcp(address_, 1000, &sockets[i]).ok());
    if (i % 2 == 1) send(sockets[i], noise.data(), noise.size(), MSG_NOSIGNAL);
    worker_->progress(nullptr);
  }
  expect_the_client_gets_in();
  for (const int socket : sockets) close(socket);
}

// As a program does it, with the library's own plugin.
TEST_F(UcxHellos, the_library_passes_on_what_the_worker_said) {
  Hand old;
  UcxRefusal refusal;
  refusal.version = kUcxVersion + 1;
  refusal.why = uint32_t(UcxRefused::kVersion);
  old.answer = [&] { old.say(kUcxRefusalId, &refusal, sizeof refusal); };
  const std::string data = old.listen() + "/" + hex(right_.cookie, kUcxCookieBytes);
  std::atomic<bool> stop{false};
  std::thread loop([&] {
    while (!stop.load()) old.progress();
  });
  ClientRegion memory;
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  std::unique_ptr<Link> link;
  const uint64_t begin = now_ns();
  const Outcome outcome = find_transport("ucx")->connect(memory.region(), pair[0], data.c_str(), &link);
  EXPECT_LT(now_ns() - begin, 3'000'000'000u);
  stop = true;
  loop.join();
  EXPECT_NE(outcome.message().find(format("speaks version %u", kUcxVersion + 1)), std::string::npos)
      << outcome.message();
  close(pair[0]);
  close(pair[1]);
}

}  // namespace
}  // namespace tide

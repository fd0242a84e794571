// The way of the bytes between two vGPUs: from worker to worker, and when through the program.

#include "loopback.h"

namespace tide {
namespace {

// Copies from vGPU 0 to vGPU 1, and what that took of their workers.
struct PeerWay : Loopback {
  void SetUp() override {
    Loopback::SetUp();
    workers[0]->gives_memory = true;
    workers[1]->peer = workers[0].get();
    from = allocate(kBytes);
    ASSERT_EQ(cuCtxSetCurrent(contexts[1]), CUDA_SUCCESS);
    to = allocate(kBytes);
  }
  void copy() {
    std::vector<unsigned char> out(kBytes, static_cast<unsigned char>(++copies)), in(kBytes);
    EXPECT_EQ(cuMemcpyHtoD_v2(from, out.data(), kBytes), CUDA_SUCCESS);
    before = {asks(), fetches(), through_program()};
    EXPECT_EQ(cuMemcpyPeer(to, contexts[1], from, contexts[0], kBytes), CUDA_SUCCESS);
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    before = {asks() - before[0], fetches() - before[1], through_program() - before[2]};
    EXPECT_EQ(cuMemcpyDtoH_v2(in.data(), to, kBytes), CUDA_SUCCESS);
    EXPECT_EQ(in, out);
  }
  using Counts = std::vector<size_t>;
  size_t asks() const { return workers[0]->count(Call::tidePeerAddress); }
  size_t fetches() const { return workers[1]->count(Call::tideFetch); }
  size_t through_program() const { return workers[0]->count(Call::tideCopyOut); }

  static constexpr size_t kBytes = 70'000;
  CUdeviceptr from = 0, to = 0;
  int copies = 0;
  Counts before;  // of the last copy: asks, fetches, copies out
};

TEST_F(PeerWay, the_address_is_asked_for_once) {
  copy();
  EXPECT_EQ(before, (Counts{1, 1, 0}));
  copy();
  EXPECT_EQ(before, (Counts{0, 1, 0}));
}

TEST_F(PeerWay, a_source_that_moves_is_asked_again) {
  copy();
  workers[1]->fetches_end = {FetchState::kUnreachable, FetchState::kMoving, FetchState::kGone};
  copy();
  EXPECT_EQ(before, (Counts{3, 4, 0}));
}

TEST_F(PeerWay, who_refuses_an_old_address_may_be_another_worker) {
  copy();
  workers[1]->fetches_end = {FetchState::kRefused};
  copy();
  EXPECT_EQ(before, (Counts{1, 2, 0}));
}

TEST_F(PeerWay, where_there_is_no_way_the_program_copies) {
  workers[1]->fetches_end = {FetchState::kUnreachable, FetchState::kUnreachable};
  copy();
  EXPECT_EQ(before, (Counts{2, 2, 1})) << "it might have moved in between";
  copy();
  EXPECT_EQ(before, (Counts{0, 0, 1})) << "and it is not tried again";
}

TEST_F(PeerWay, what_is_refused_the_program_copies) {
  workers[1]->fetches_end = {FetchState::kRefused};
  copy();
  EXPECT_EQ(before, (Counts{1, 1, 1}));
  workers[1]->fetches_end = {FetchState::kFailed};
  copy();
  EXPECT_EQ(before, (Counts{0, 1, 1}));
  copy();
  EXPECT_EQ(before, (Counts{0, 1, 0})) << "that was about this copy only";
}

TEST_F(PeerWay, it_is_not_tried_for_ever) {
  workers[1]->fetches_end = std::deque<FetchState>(100, FetchState::kMoving);
  copy();
  EXPECT_EQ(before[2], 1u);
}

TEST_F(PeerWay, a_source_without_an_address_is_not_asked_again) {
  workers[0]->gives_memory = false;
  copy();
  EXPECT_EQ(before, (Counts{1, 0, 1}));
  copy();
  EXPECT_EQ(before, (Counts{0, 0, 1}));
}

}  // namespace
}  // namespace tide

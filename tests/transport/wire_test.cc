// docs/wire.md says every byte; this compares its numbers with the structures.

#include <gtest/gtest.h>

#include <cstddef>

#include "transport/door.h"
#include "transport/frame.h"
#include "transport/layout.h"
#include "transport/replica.h"

#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace tide {
namespace {

TEST(Wire, the_region_lies_as_documented) {
  EXPECT_EQ(kRegionBytes, 34'127'872u);
  EXPECT_EQ(kClientPageOffset, 0u);
  EXPECT_EQ(sizeof(ClientPage), 9'088u);
  EXPECT_EQ(kWorkerPageOffset, 12'288u);
  EXPECT_EQ(sizeof(WorkerPage), 557'888u);
  EXPECT_EQ(kCommandRingOffset, 573'440u);
  EXPECT_EQ(kAnswerRingOffset, 17'350'656u);
}

TEST(Wire, the_client_page_lies_as_documented) {
  EXPECT_EQ(offsetof(ClientPage, command_head), 64u);
  EXPECT_EQ(offsetof(ClientPage, answer_tail), 128u);
  EXPECT_EQ(offsetof(ClientPage, doorbell), 192u);
  EXPECT_EQ(offsetof(ClientPage, asleep), 196u);
  EXPECT_EQ(offsetof(ClientPage, counters), 256u);
  EXPECT_EQ(sizeof(ClientCounters), 88u);
  EXPECT_EQ(offsetof(ClientPage, renewed), 344u);
  EXPECT_EQ(offsetof(ClientPage, recovered), 352u);
  EXPECT_EQ(offsetof(ClientPage, checkpoint_wanted), 360u);
  EXPECT_EQ(offsetof(ClientPage, unprotected), 368u);
  EXPECT_EQ(offsetof(ClientPage, trips), 384u);
  EXPECT_EQ(sizeof(TripCounts), 512u);
  EXPECT_EQ(offsetof(ClientPage, signals), 896u);
}

TEST(Wire, the_worker_page_lies_as_documented) {
  EXPECT_EQ(offsetof(WorkerPage, epoch), 8u);
  EXPECT_EQ(offsetof(WorkerPage, next_epoch), 16u);
  EXPECT_EQ(offsetof(WorkerPage, next_endpoint), 24u);
  EXPECT_EQ(offsetof(WorkerPage, safe_answers), 536u);
  EXPECT_EQ(offsetof(WorkerPage, safe_sequence), 544u);
  EXPECT_EQ(offsetof(WorkerPage, command_tail), 576u);
  EXPECT_EQ(offsetof(WorkerPage, acknowledged), 584u);
  EXPECT_EQ(offsetof(WorkerPage, answer_head), 640u);
  EXPECT_EQ(offsetof(WorkerPage, asleep), 704u);
  EXPECT_EQ(offsetof(WorkerPage, wake), 708u);
  EXPECT_EQ(offsetof(WorkerPage, error), 768u);
  EXPECT_EQ(offsetof(WorkerPage, sticky), 792u);
  EXPECT_EQ(offsetof(WorkerPage, content_slots), 808u);
  EXPECT_EQ(offsetof(WorkerPage, held), 816u);
  EXPECT_EQ(offsetof(WorkerPage, memory_shared), 824u);
  EXPECT_EQ(offsetof(WorkerPage, stream_progress), 832u);
  EXPECT_EQ(offsetof(WorkerPage, event_done), 33'600u);
}

TEST(Wire, records_lie_as_documented) {
  EXPECT_EQ(offsetof(CommandHeader, call), 4u);
  EXPECT_EQ(offsetof(CommandHeader, sequence), 8u);
  EXPECT_EQ(offsetof(CommandHeader, stream), 20u);
  EXPECT_EQ(offsetof(CommandHeader, reserved), 28u);
  EXPECT_EQ(offsetof(AnswerHeader, kind), 4u);
  EXPECT_EQ(offsetof(AnswerHeader, result), 16u);
  EXPECT_EQ(offsetof(AnswerHeader, offset), 24u);
}

TEST(Wire, door_frames_lie_as_documented) {
  EXPECT_EQ(sizeof(DoorHeader), 16u);
  EXPECT_EQ(sizeof(DoorHello), 64u + 32 + 8);
  EXPECT_EQ(sizeof(DoorVgpu), 16u + 512 + 8);
  EXPECT_EQ(sizeof(DoorPlace), 16u + 512);
  EXPECT_EQ(sizeof(DoorOpen), 64u + 32 + 16 + 8 + 16 + 64 + 8);
  EXPECT_EQ(sizeof(DoorOpened), 16u + 512 + 24);
  EXPECT_EQ(sizeof(DoorRefused), 8u + 512);
}

TEST(Wire, parcels_lie_as_documented) {
  EXPECT_EQ(offsetof(ParcelHeader, ring_begin), 8u);
  EXPECT_EQ(offsetof(ParcelHeader, entry_count), 20u);
  EXPECT_EQ(offsetof(ParcelHeader, received), 24u);
  EXPECT_EQ(offsetof(Parcel, entries), 32u);
  EXPECT_EQ(offsetof(ParcelEntry, value), 8u);
  EXPECT_EQ(kParcelEntriesMax, 64u);
  EXPECT_EQ(kParcelRingBytesMax, 256u << 10);
}

}  // namespace
}  // namespace tide

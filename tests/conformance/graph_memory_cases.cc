// Memory that lives between two nodes of a graph, and objects of the program that graphs keep alive.
#include <poll.h>

#include "fixture.h"

namespace conformance {
namespace {

class GraphMemory : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    OK(CU(cuGraphCreate)(&graph_, 0));
  }
  static CUDA_MEM_ALLOC_NODE_PARAMS wanted(size_t bytes) {
    CUDA_MEM_ALLOC_NODE_PARAMS params{};
    params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    params.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
    params.bytesize = bytes;
    return params;
  }
  CUgraphNode alloc(size_t bytes, CUdeviceptr* address) {
    CUDA_MEM_ALLOC_NODE_PARAMS params = wanted(bytes);
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddMemAllocNode)(&node, graph_, nullptr, 0, &params), CUDA_SUCCESS);
    *address = params.dptr;
    return node;
  }
  CUgraphNode fill(CUdeviceptr address, unsigned value, size_t count, CUgraphNode after) {
    CUDA_MEMSET_NODE_PARAMS params{};
    params.dst = address;
    params.elementSize = 4;
    params.value = value;
    params.width = count;
    params.height = 1;
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddMemsetNode)(&node, graph_, &after, 1, &params, context), CUDA_SUCCESS);
    return node;
  }
  CUgraphNode copy(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUgraphNode after) {
    CUDA_MEMCPY3D box{};
    box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    box.srcDevice = from;
    box.dstDevice = to;
    box.WidthInBytes = bytes;
    box.Height = box.Depth = 1;
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddMemcpyNode)(&node, graph_, &after, 1, &box, context), CUDA_SUCCESS);
    return node;
  }
  CUgraphExec instantiate(unsigned long long flags = 0) {
    CUgraphExec made = nullptr;
    EXPECT_EQ(CU(cuGraphInstantiateWithFlags)(&made, graph_, flags), CUDA_SUCCESS);
    return made;
  }
  cuuint64_t attribute_of_graphs(CUgraphMem_attribute which) {
    cuuint64_t value = ~cuuint64_t{0};
    EXPECT_EQ(CU(cuDeviceGetGraphMemAttribute)(device, which, &value), CUDA_SUCCESS);
    return value;
  }
  CUgraph graph_ = nullptr;
};

TEST_F(GraphMemory, lives_between_its_nodes) {
  CUdeviceptr inside = 0;
  const CUdeviceptr result = words({0, 0, 0, 0});
  const CUgraphNode made = alloc(1 << 20, &inside);
  ASSERT_NE(inside, 0u);
  const CUgraphNode copied = copy(result, inside, 16, fill(inside, 7, 4, made));
  CUgraphNode freed = nullptr;
  OK(CU(cuGraphAddMemFreeNode)(&freed, graph_, &copied, 1, inside));
  CUDA_MEM_ALLOC_NODE_PARAMS params{};
  OK(CU(cuGraphMemAllocNodeGetParams)(made, &params));
  EXPECT_EQ(params.dptr, inside);
  EXPECT_EQ(params.bytesize, size_t{1} << 20);
  CUdeviceptr which = 0;
  OK(CU(cuGraphMemFreeNodeGetParams)(freed, &which));
  EXPECT_EQ(which, inside);
  CUgraphNodeType type{};
  OK(CU(cuGraphNodeGetType)(made, &type));
  EXPECT_EQ(type, CU_GRAPH_NODE_TYPE_MEM_ALLOC);
  const CUgraphExec exec = instantiate();
  for (int i = 0; i < 3; i++) {
    OK(CU(cuMemsetD32_v2)(result, 0, 4));
    OK(CU(cuGraphLaunch)(exec, nullptr));
    EXPECT_EQ(read(result, 4), std::vector<uint32_t>(4, 7));
  }
}

TEST_F(GraphMemory, outlives_the_launch_until_it_is_freed) {
  CUdeviceptr inside = 0;
  const CUgraphNode made = alloc(4096, &inside);
  fill(inside, 5, 4, made);
  const CUgraphExec exec = instantiate();
  OK(CU(cuGraphLaunch)(exec, nullptr));
  EXPECT_EQ(read(inside, 4), std::vector<uint32_t>(4, 5));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphLaunch)(exec, nullptr));  // it is there already
  OK(CU(cuMemFreeAsync)(inside, nullptr));
  OK(CU(cuGraphLaunch)(exec, nullptr));
  OK(CU(cuMemFree_v2)(inside));
  OK(CU(cuGraphLaunch)(exec, nullptr));
}

TEST_F(GraphMemory, is_freed_by_the_next_launch) {
  CUdeviceptr inside = 0;
  const CUgraphNode made = alloc(4096, &inside);
  fill(inside, 5, 4, made);
  const CUgraphExec exec = instantiate(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
  OK(CU(cuGraphLaunch)(exec, nullptr));
  OK(CU(cuGraphLaunch)(exec, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
}

TEST_F(GraphMemory, wrong_arguments) {
  CUgraphNode node = nullptr;
  CUDA_MEM_ALLOC_NODE_PARAMS params = wanted(0);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddMemAllocNode)(&node, graph_, nullptr, 0, &params));
  params = wanted(64);
  params.poolProps.location.id = 99;
  EXPECT_NE(CU(cuGraphAddMemAllocNode)(&node, graph_, nullptr, 0, &params), CUDA_SUCCESS);
  params = wanted(size_t{1} << 46);
  GIVES(CUDA_ERROR_OUT_OF_MEMORY, CU(cuGraphAddMemAllocNode)(&node, graph_, nullptr, 0, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddMemAllocNode)(&node, graph_, nullptr, 0, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddMemFreeNode)(&node, graph_, nullptr, 0, 0x1000));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddMemFreeNode)(&node, graph_, nullptr, 0, allocate(64)));
  CUdeviceptr inside = 0;
  const CUgraphNode made = alloc(64, &inside);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphMemAllocNodeGetParams)(made, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphMemFreeNodeGetParams)(made, &inside));  // that allocates
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphMemFreeNodeGetParams)(made, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphMemAllocNodeGetParams)(nullptr, &params));
  // Graphs with memory are neither cloned nor made children, and such nodes stay.
  CUgraph other = nullptr;
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuGraphClone)(&other, graph_));
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuGraphDestroyNode)(made));
  OK(CU(cuGraphCreate)(&other, 0));
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuGraphAddChildGraphNode)(&node, other, nullptr, 0, graph_));
}

TEST_F(GraphMemory, is_counted) {
  EXPECT_EQ(attribute_of_graphs(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), 0u);
  CUdeviceptr inside = 0;
  alloc(1 << 20, &inside);
  const CUgraphExec exec = instantiate();
  OK(CU(cuGraphLaunch)(exec, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
  EXPECT_GE(attribute_of_graphs(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), cuuint64_t{1} << 20);
  EXPECT_GE(attribute_of_graphs(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT), cuuint64_t{1} << 20);
  OK(CU(cuMemFree_v2)(inside));
  EXPECT_EQ(attribute_of_graphs(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), 0u);
  EXPECT_GE(attribute_of_graphs(CU_GRAPH_MEM_ATTR_USED_MEM_HIGH), cuuint64_t{1} << 20);
  cuuint64_t value = 0;
  OK(CU(cuDeviceSetGraphMemAttribute)(device, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &value));
  EXPECT_EQ(attribute_of_graphs(CU_GRAPH_MEM_ATTR_USED_MEM_HIGH), 0u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceSetGraphMemAttribute)(device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &value));
  value = 5;  // a peak can only be reset
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceSetGraphMemAttribute)(device, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &value));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetGraphMemAttribute)(device, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE,
        CU(cuDeviceGetGraphMemAttribute)(device, static_cast<CUgraphMem_attribute>(99), &value));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGetGraphMemAttribute)(99, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &value));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceSetGraphMemAttribute)(99, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &value));
  GIVES(CUDA_SUCCESS, CU(cuDeviceGraphMemTrim)(device));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGraphMemTrim)(99));
}

TEST_F(GraphMemory, trimming_gives_back_what_destroyed_graphs_had) {
  size_t before = 0, after = 0, total = 0;
  OK(CU(cuMemGetInfo_v2)(&before, &total));
  CUdeviceptr inside = 0;
  alloc(32 << 20, &inside);
  const CUgraphExec exec = instantiate(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
  OK(CU(cuGraphLaunch)(exec, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
  OK(CU(cuMemFree_v2)(inside));
  OK(CU(cuGraphExecDestroy)(exec));
  OK(CU(cuGraphDestroy)(graph_));
  OK(CU(cuDeviceGraphMemTrim)(device));
  EXPECT_EQ(attribute_of_graphs(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT), 0u);
  OK(CU(cuMemGetInfo_v2)(&after, &total));
  EXPECT_EQ(after, before);
}

TEST_F(GraphMemory, is_captured) {
  const CUstream work = stream();
  const CUdeviceptr result = words({0, 0});
  CUdeviceptr inside = 0;
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(CU(cuMemAllocAsync)(&inside, 4096, work));
  OK(CU(cuMemsetD32Async)(inside, 9, 2, work));
  OK(CU(cuMemcpyDtoDAsync_v2)(result, inside, 8, work));
  OK(CU(cuMemFreeAsync)(inside, work));
  CUgraph made = nullptr;
  OK(CU(cuStreamEndCapture)(work, &made));
  CUgraphExec exec = nullptr;
  OK(CU(cuGraphInstantiateWithFlags)(&exec, made, 0));
  OK(CU(cuGraphLaunch)(exec, nullptr));
  EXPECT_EQ(read(result, 2), (std::vector<uint32_t>{9, 9}));
}

// --- user objects ---

class UserObjects : public GraphMemory {
 protected:
  CUuserObject object(unsigned references) {
    static int ended;
    ended = 0;
    ended_ = &ended;
    CUuserObject made = nullptr;
    EXPECT_EQ(CU(cuUserObjectCreate)(&made, &ended, count_end, references, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC),
              CUDA_SUCCESS);
    return made;
  }
  static void CUDA_CB count_end(void* counter) { ++*static_cast<int*>(counter); }
  // Destructors may run in another thread.
  int ended() const {
    for (int i = 0; i < 100 && *static_cast<volatile int*>(ended_) == 0; i++) poll(nullptr, 0, 1);
    return *ended_;
  }
  int* ended_ = nullptr;
};

TEST_F(UserObjects, end_with_the_last_reference) {
  const CUuserObject made = object(2);
  OK(CU(cuUserObjectRetain)(made, 3));
  OK(CU(cuUserObjectRelease)(made, 4));
  EXPECT_EQ(*ended_, 0);
  OK(CU(cuUserObjectRelease)(made, 1));
  EXPECT_EQ(ended(), 1);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectRelease)(made, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectRetain)(made, 1));
}

TEST_F(UserObjects, live_as_long_as_graphs_have_them) {
  const CUuserObject made = object(1);
  OK(CU(cuGraphRetainUserObject)(graph_, made, 2, 0));
  OK(CU(cuUserObjectRelease)(made, 1));
  OK(CU(cuGraphReleaseUserObject)(graph_, made, 1));
  EXPECT_EQ(*ended_, 0);
  CUgraphNode node = nullptr;
  OK(CU(cuGraphAddEmptyNode)(&node, graph_, nullptr, 0));
  CUgraph clone = nullptr;
  OK(CU(cuGraphClone)(&clone, graph_));
  const CUgraphExec exec = instantiate();
  OK(CU(cuGraphDestroy)(graph_));
  OK(CU(cuGraphDestroy)(clone));
  EXPECT_EQ(*ended_, 0);  // what was instantiated has it too
  OK(CU(cuGraphLaunch)(exec, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
  OK(CU(cuGraphExecDestroy)(exec));
  EXPECT_EQ(ended(), 1);
}

TEST_F(UserObjects, references_may_be_handed_over) {
  const CUuserObject made = object(1);
  OK(CU(cuGraphRetainUserObject)(graph_, made, 1, CU_GRAPH_USER_OBJECT_MOVE));
  OK(CU(cuGraphReleaseUserObject)(graph_, made, 1));
  EXPECT_EQ(ended(), 1);
}

TEST_F(UserObjects, wrong_arguments) {
  CUuserObject made = nullptr;
  int counter = 0;
  const unsigned flags = CU_USER_OBJECT_NO_DESTRUCTOR_SYNC;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectCreate)(nullptr, &counter, count_end, 1, flags));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectCreate)(&made, &counter, nullptr, 1, flags));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectCreate)(&made, &counter, count_end, 0, flags));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectCreate)(&made, &counter, count_end, 1, 0));
  made = object(1);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectRetain)(made, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectRelease)(made, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectRetain)(nullptr, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuUserObjectRelease)(nullptr, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphRetainUserObject)(nullptr, made, 1, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphRetainUserObject)(graph_, nullptr, 1, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphRetainUserObject)(graph_, nullptr, 1, CU_GRAPH_USER_OBJECT_MOVE));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphRetainUserObject)(graph_, made, 0, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphRetainUserObject)(graph_, made, 1, 8));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphReleaseUserObject)(graph_, made, 1));  // it has none
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphReleaseUserObject)(nullptr, made, 1));
  EXPECT_EQ(*ended_, 0);
}

TEST_F(UserObjects, destructors_call_no_driver) {
  static CUresult seen;
  seen = CUDA_SUCCESS;
  CUuserObject made = nullptr;
  const auto destroy = [](void*) {
    size_t free = 0, total = 0;
    seen = CU(cuMemGetInfo_v2)(&free, &total);
  };
  OK(CU(cuUserObjectCreate)(&made, nullptr, destroy, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
  OK(CU(cuUserObjectRelease)(made, 1));
  for (int i = 0; i < 100 && *static_cast<volatile CUresult*>(&seen) == CUDA_SUCCESS; i++) poll(nullptr, 0, 1);
  EXPECT_EQ(seen, CUDA_ERROR_NOT_PERMITTED);
}

}  // namespace
}  // namespace conformance

#pragma once

namespace tide {

// Whether the kernel knows an RDMA device; loads nothing.
bool has_rdma_device();

}  // namespace tide

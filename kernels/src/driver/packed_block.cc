#include <utility>

#include "dirnet/dirnet.h"
#include "driver/memory.h"

namespace dirnet {

PackedBlock::PackedBlock(Isa isa, size_t bytes)
    : data_(allocate_aligned(bytes)), size_bytes_(data_ != nullptr ? bytes : 0), isa_(isa) {}

PackedBlock::PackedBlock(PackedBlock&& other) noexcept { *this = std::move(other); }

PackedBlock& PackedBlock::operator=(PackedBlock&& other) noexcept {
  if (this == &other) return *this;
  free_aligned(data_);
  data_ = std::exchange(other.data_, nullptr);
  size_bytes_ = std::exchange(other.size_bytes_, 0);
  isa_ = other.isa_;
  return *this;
}

PackedBlock::~PackedBlock() { free_aligned(data_); }

}  // namespace dirnet

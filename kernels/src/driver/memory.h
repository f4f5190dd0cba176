#ifndef DIRNET_SRC_DRIVER_MEMORY_H_
#define DIRNET_SRC_DRIVER_MEMORY_H_

#include <cstddef>
#include <cstdint>

namespace dirnet {

// Memory aligned to 64 bytes, zeroed; null when there is none. C++17's aligned new would do it, but needs a
// newer C++ run time than the oldest systems that the library is meant for have.
uint8_t* allocate_aligned(size_t bytes);
void free_aligned(uint8_t* memory);

class AlignedBuffer {
 public:
  explicit AlignedBuffer(size_t bytes) : data_(allocate_aligned(bytes)) {}
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { free_aligned(data_); }
  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_MEMORY_H_

#ifndef DIRNET_SRC_DRIVER_BLOCK_EPILOGUE_H_
#define DIRNET_SRC_DRIVER_BLOCK_EPILOGUE_H_

#include "dirnet/dirnet.h"
#include "driver/layout.h"
#include "driver/tile.h"

namespace dirnet {

// What the epilogue has to know of the output; owns_words: no two blocks write to one word of bits.
struct OutputExtent {
  int64_t pixels;
  int64_t channels;
  bool owns_words;
};

// The part of a convolution's epilogue that is one block's, with what can be decided once for all its pixels.
BlockEpilogue block_epilogue(const Epilogue& epilogue, const Block& block, const OutputExtent& extent);

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_BLOCK_EPILOGUE_H_

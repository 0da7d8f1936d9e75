// Gradient rows: every row gathers its weighted source rows. Inverse lists, hubs, gathering.
#pragma once

#include "cuda/element.h"

struct CUstream_st;

namespace goal_kernels::cuda {

// Entries of a list key -> position: which entries have key r, for every row r.
struct InverseList {
  const std::int64_t* keys;  // [entries]; outside [0, rows): in no row's list
  std::int64_t entries;
  std::int64_t rows;
  std::int64_t* order;   // [entries], by key, then ascending; those of no row last
  std::int64_t* starts;  // [rows + 1]: row r has order[starts[r]] up to order[starts[r + 1]]
};

struct InvertArguments {
  InverseList lists[2];
};

constexpr std::int64_t kHubChunk = 64;  // entries whose weighted sum is made ahead, if they are all of one row

// Gradient rows of one side. Source row of entry e: e, less source.count if that is too large.
struct GatherSide {
  void* out;                          // [rows, width], contiguous; null: not wanted
  Rows own;                           // rows to which the gradient belongs
  const float* own_scale;             // [rows], null without normalize
  Rows source;                        // the other side
  const float* source_scale;          // [source rows]
  const std::int64_t* mined_index;    // [rows], -1: none
  const float* mined_weight;          // [rows]
  const float* mined_value;           // [rows], similarity; read with scales only, like the values below
  const std::int64_t* positive_index;  // [rows]; null: own number
  const float* positive_weight;       // [rows], subtracted; null: none
  const float* positive_value;        // [rows]
  InverseList list;
  const float* entry_weight;          // [entries]
  const float* entry_value;           // [entries]
  float* partial;                     // [entries / kHubChunk, width], workspace
};

// With scales the gradients are those of the raw rows. grad_loss: one float.
struct GatherArguments {
  GatherSide sides[2];
  const float* grad_loss;
  Dtype dtype;
  int width;
};

// O(entries (entries + rows)): for short lists; longer ones are sorted by the caller.
void invert(const InvertArguments& arguments, CUstream_st* stream);
void invert_emulated(const InvertArguments& arguments);
void gather(const GatherArguments& arguments, CUstream_st* stream);
void gather_emulated(const GatherArguments& arguments);

}  // namespace goal_kernels::cuda

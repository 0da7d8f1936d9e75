// What ranking wants of a micro-tile of S: how many wrong candidates score better than the best positive of
// each row and column, and how many the same.
//
// The *score* of a pair is its dot product in double, rounded once to float; S, the product of a tile, only
// tells most pairs apart without it. `rank_epilogue.h` counts, `rank.cpp` prepares.
#pragma once

#include <cfloat>

#include "tile_kernel.h"

namespace goal_kernels {

// The best positives of queries, as parallel arrays.
template <typename T>
struct Bar {
  const float* best;  // score of the best positive; -inf for a query without one
  const T* above;     // the least float above it: a dot product here or higher scores better
  const T* below;     // the greatest float below it: a dot product here or lower scores worse
  const T* reach;     // |S - dot product| < reach of the row * reach of the column; inf: nothing is known
};

// How many wrong candidates of each query score better than its best positive and how many the same.
template <typename T>
struct Tally {
  Integer<T>* better;
  Integer<T>* ties;
};

// A micro-tile to count. Arrays along rows point at the first row of the tile, those along columns at its
// first column. Those along columns are readable, and tallies writable, for a whole micro-tile.
template <typename T>
struct RankTile {
  TilePlace<T> place;
  const Matrix* image;
  const Matrix* text;
  const Integer<T>* owner;  // row of the only positive of each column
  Bar<T> row_bar;
  Bar<T> column_bar;
  Tally<T> row;
  Tally<T> column;
};

namespace {

// What a score compares as: NaN below every number, infinity as the largest one.
inline float comparable(float score) {
  if (score != score) return -__builtin_inff();
  return score > FLT_MAX ? FLT_MAX : score;
}

}  // namespace
}  // namespace goal_kernels

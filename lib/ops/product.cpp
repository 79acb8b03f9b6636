// SPDX-License-Identifier: Apache-2.0
// f32 and bf16 tiles go to oneDNN's matmul, one single-threaded primitive per tile shape, kept in a
// cache; the tiles of one product are shared out to the threads of the pool. Measured on Zen 5
// against one multi-threaded primitive: the same speed on idle cores, and no waiting for the
// slowest thread when another process takes a core. Tiles whose implementation would be the
// library's reference loops, and f64, go to own_product.
#include "lib/ops/product.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "lib/base/threads.h"
#include "lib/ops/own_product.h"
#include "lib/ops/scratch.h"
#include "lib/ops/transpose.h"

namespace stmoe {
namespace {

constexpr size_t kMostPrimitives = 1024;
constexpr int64_t kMostDepth =
    4096;  // longer sums are cut: faster, and added up in C or in an f32 copy of it

struct Tiling {
  int64_t rows, cols, depth;
};

// The library's description of one matrix: sizes and strides as it wants them.
struct Layout {
  int64_t rows, cols, row_stride, col_stride;
  DType dtype;
  auto operator<=>(const Layout&) const = default;
};

struct Key {
  Layout c, a, b;
  bool accumulate;
  auto operator<=>(const Key&) const = default;
};

struct Primitive {
  dnnl::matmul matmul;  // empty: use own_product
  dnnl::memory::desc c, a, b, scratchpad;
};

const dnnl::engine& engine() {
  static const dnnl::engine one(dnnl::engine::kind::cpu, 0);
  return one;
}

// The library takes one thread while this lives: it looks at the calling thread's OpenMP setting
// both when it plans a primitive and, in some implementations, when it runs one.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

dnnl::memory::desc describe(const Layout& layout) {
  const auto type =
      layout.dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  return {{layout.rows, layout.cols}, type, {layout.row_stride, layout.col_stride}};
}

// Strides of dimensions of size one mean nothing: give them the values of a packed matrix, so that
// the library recognises the layout.
Layout layout_of(const MatrixView& view) {
  Layout layout{view.rows, view.cols, view.row_stride, view.col_stride, view.dtype};
  if (view.cols == 1) layout.col_stride = 1;
  if (view.rows == 1) layout.row_stride = layout.col_stride == 1 ? view.cols : 1;
  if (view.cols == 1 && view.rows > 1 && layout.row_stride < 1) layout.row_stride = 1;
  return layout;
}

bool is_plain(const Layout& layout) {
  return (layout.col_stride == 1 && layout.row_stride >= layout.cols) ||
         (layout.row_stride == 1 && layout.col_stride >= layout.rows);
}

Primitive make_primitive(const Key& key) {
  Primitive result;
  if (!is_plain(key.a) || !is_plain(key.b) || !is_plain(key.c)) return result;
  result.c = describe(key.c);
  result.a = describe(key.a);
  result.b = describe(key.b);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const OneThread one_thread;
  try {
    dnnl::matmul::primitive_desc plan({result.a, result.b, result.c}, attributes, engine());
    if (std::string_view(plan.impl_info_str()).find("ref") == std::string_view::npos) {
      result.scratchpad = plan.scratchpad_desc();
      result.matmul = dnnl::matmul(plan);
    }
  } catch (const dnnl::error&) {
    result.matmul = {};
  }
  return result;
}

std::shared_ptr<const Primitive> find_primitive(const Key& key) {
  static std::mutex mutex;
  static std::map<Key, std::shared_ptr<const Primitive>> cache;
  std::lock_guard lock(mutex);
  auto& entry = cache[key];
  if (!entry) {
    auto made = std::make_shared<const Primitive>(make_primitive(key));
    if (cache.size() > kMostPrimitives) cache.clear();
    cache[key] = made;
    return made;
  }
  return entry;
}

void run_primitive(const Primitive& primitive, const MatrixView& c, const MatrixView& a,
                   const MatrixView& b) {
  thread_local dnnl::stream stream(engine());
  const OneThread one_thread;
  Scratch scratch;
  void* pad = scratch.take<std::byte>(static_cast<int64_t>(primitive.scratchpad.get_size()));
  primitive.matmul.execute(stream, {{DNNL_ARG_SRC, {primitive.a, engine(), a.data}},
                                    {DNNL_ARG_WEIGHTS, {primitive.b, engine(), b.data}},
                                    {DNNL_ARG_DST, {primitive.c, engine(), c.data}},
                                    {DNNL_ARG_SCRATCHPAD, {primitive.scratchpad, engine(), pad}}});
}

void tile_of_product(const MatrixView& c, const MatrixView& a, const MatrixView& b,
                     bool accumulate) {
  if (c.dtype != DType::f64 && a.cols > 0) {
    auto primitive = find_primitive({layout_of(c), layout_of(a), layout_of(b), accumulate});
    if (primitive->matmul) return run_primitive(*primitive, c, a, b);
  }
  own_product(c, a, b, accumulate);
}

// One tile with its whole sum; a bf16 tile of a long sum is added up in f32 first.
void whole_tile(const MatrixView& c, const MatrixView& a, const MatrixView& b, int64_t depth,
                bool accumulate) {
  if (a.cols <= depth) return tile_of_product(c, a, b, accumulate);
  Scratch scratch;
  MatrixView sums = c;
  if (c.dtype == DType::bf16) {
    sums.dtype = DType::f32;
    sums.row_stride = c.cols;
    sums.data = reinterpret_cast<std::byte*>(scratch.take<float>(c.rows * c.cols));
  }
  for (int64_t k = 0; k < a.cols; k += depth) {
    const int64_t some = std::min(depth, a.cols - k);
    tile_of_product(sums, a.part(0, 0, a.rows, k, some), b.part(0, k, some, 0, b.cols),
                    accumulate || k > 0);
  }
  if (c.dtype != DType::bf16) return;
  for (int64_t r = 0; r < c.rows; ++r) {
    bf16* out = reinterpret_cast<bf16*>(c.data) + r * c.row_stride;
    const float* in = reinterpret_cast<const float*>(sums.data) + r * c.cols;
    for (int64_t j = 0; j < c.cols; ++j) out[j] = bf16(in[j]);
  }
}

int64_t pieces_of(int64_t size, int64_t pieces, int64_t multiple) {
  const int64_t each = (size + pieces - 1) / pieces;
  return std::min(size, (each + multiple - 1) / multiple * multiple);
}

// Measured: the library packs (a block of) B anew for every tile, so tiles of 512 rows and columns
// or more are fast, 256 rows cost up to 5 %, 128 rows or 256 columns up to 15 %. `share` is how
// many matrices of about this size are multiplied together: cut as far as that is worth for 16
// tiles of at least 20 MFLOP in all.
Tiling tiling_of(const MatrixView& c, const MatrixView& a, int64_t share) {
  struct Limit {
    int64_t rows, cols, tiles;  // cut down to this size while there are fewer tiles
  };
  const double flops = 2.0 * static_cast<double>(share) * static_cast<double>(c.rows) *
                       static_cast<double>(c.cols) * static_cast<double>(a.cols);
  const auto wanted = static_cast<int64_t>(std::clamp(flops / 2e7, 1.0, 16.0));
  const Limit limits[] = {
      {1024, 2048, INT64_MAX}, {512, 512, 16}, {256, 512, 16}, {128, 512, 8}, {64, 256, 4}};
  int64_t row_pieces = 1, col_pieces = 1;
  for (const Limit& limit : limits) {
    const int64_t most = limit.tiles == INT64_MAX ? INT64_MAX : std::min(limit.tiles, wanted);
    const auto has_fewer = [&] { return share * row_pieces * col_pieces < most; };
    while (has_fewer() && c.rows >= 2 * row_pieces * limit.rows) row_pieces *= 2;
    while (has_fewer() && c.cols >= 2 * col_pieces * limit.cols) col_pieces *= 2;
  }
  const int64_t depth_pieces = std::max<int64_t>(1, num_chunks(a.cols, kMostDepth));
  return {pieces_of(c.rows, row_pieces, 16), pieces_of(c.cols, col_pieces, 64),
          std::max<int64_t>(1, pieces_of(a.cols, depth_pieces, 64))};
}

// The library copies a transposed A once per tile and slowly: where there is enough to gain, we
// transpose it once. Rows of the copy do not start a power of two apart, or they would compete for
// the same cache sets.
bool pays_to_transpose(const MatrixView& c, const MatrixView& a) {
  constexpr int64_t kLeast = 256;
  return a.dtype != DType::f64 && a.row_stride == 1 && a.col_stride >= a.rows && a.rows >= 64 &&
         a.cols >= kLeast && c.cols >= kLeast;
}

// A product of the list as it is computed, and the number of its first tile among all tiles.
struct TiledProduct {
  MatrixView c, a, b;
  Tiling tile;
  int64_t row_tiles, col_tiles, first_tile;

  int64_t num_tiles() const { return c.batch * row_tiles * col_tiles; }
  void compute(int64_t index, bool accumulate) const {
    const int64_t matrix = index / (row_tiles * col_tiles);
    const int64_t row = index / col_tiles % row_tiles * tile.rows;
    const int64_t col = index % col_tiles * tile.cols;
    const int64_t rows = std::min(tile.rows, c.rows - row);
    const int64_t cols = std::min(tile.cols, c.cols - col);
    whole_tile(c.part(matrix, row, rows, col, cols), a.part(matrix, row, rows, 0, a.cols),
               b.part(matrix, 0, b.rows, col, cols), tile.depth, accumulate);
  }
};

void multiply_cpu(std::span<const Product> list, bool accumulate) {
  std::vector<Tensor> copies;
  std::vector<TiledProduct> tiled;
  int64_t matrices = 0, tiles = 0;
  for (const Product& one : list) matrices += one.c.batch;
  for (const Product& one : list) {
    MatrixView a = one.a;
    if (pays_to_transpose(one.c, a)) {
      const int64_t row = (a.cols + 31) / 32 * 32 + 32;
      copies.push_back(Tensor::empty({a.batch, a.rows, row}, a.dtype));
      const MatrixView transposed = matrix_view(copies.back().slice(2, 0, a.cols));
      copy_transposed(transposed, a);
      a = transposed;
    }
    const Tiling tile = tiling_of(one.c, a, matrices);
    tiled.push_back({one.c, a, one.b, tile, num_chunks(one.c.rows, tile.rows),
                     num_chunks(one.c.cols, tile.cols), tiles});
    tiles += tiled.back().num_tiles();
  }
  parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const auto after = std::ranges::upper_bound(tiled, index, {}, &TiledProduct::first_tile);
      const TiledProduct& one = *std::prev(after);
      one.compute(index - one.first_tile, accumulate);
    }
  });
}

STMOE_REGISTER_KERNELS(ProductKernels, cpu, {multiply_cpu})

void check_product(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate) {
  STMOE_CHECK(c.rows == a.rows && c.cols == b.cols && a.cols == b.rows && a.batch == b.batch &&
                  a.batch == c.batch,
              "product: {} x [{}, {}] = [{}, {}] x [{}, {}] ({} matrices)", c.batch, c.rows, c.cols,
              a.rows, a.cols, b.rows, b.cols, a.batch);
  STMOE_CHECK(a.dtype == b.dtype && is_floating(a.dtype), "product: of {} and {}", name_of(a.dtype),
              name_of(b.dtype));
  STMOE_CHECK(c.dtype == a.dtype || (c.dtype == DType::f32 && a.dtype == DType::bf16),
              "product: of {} into {}", name_of(a.dtype), name_of(c.dtype));
  STMOE_CHECK(c.col_stride == 1 || c.cols <= 1,
              "product: the rows of the result are not contiguous");
  STMOE_CHECK(!accumulate || c.dtype != DType::bf16, "product: bf16 results cannot be added up");
}

}  // namespace

ProductType product_type(DType dtype) {
  return dtype == DType::bf16  ? ProductType::bf16
         : dtype == DType::f64 ? ProductType::f64
                               : ProductType::f32;
}

ProductShape profile_shape(const Product& product, bool accumulate) {
  const auto& [c, a, b] = product;
  auto bytes = [](const MatrixView& view) {
    return static_cast<double>(view.batch) * static_cast<double>(view.rows) *
           static_cast<double>(view.cols) * static_cast<double>(size_of(view.dtype));
  };
  auto is_transposed = [](const MatrixView& view) {
    return view.col_stride != 1 && view.cols > 1 && view.row_stride == 1;
  };
  return {.batch = c.batch,
          .m = c.rows,
          .n = c.cols,
          .k = a.cols,
          .is_a_transposed = is_transposed(a),
          .is_b_transposed = is_transposed(b),
          .accumulates = accumulate,
          .type = product_type(a.dtype),
          .bytes = bytes(a) + bytes(b) + bytes(c) * (accumulate ? 2 : 1),
          .note = c.dtype == a.dtype ? "" : "-> f32"};
}

namespace {

// A list counts as one product that is as high, or sums over as much, as all of them together.
ProductShape profile_shape(std::span<const Product> list, bool accumulate) {
  ProductShape shape = profile_shape(list[0], accumulate);
  for (const Product& next : list.subspan(1)) {
    const ProductShape more = profile_shape(next, accumulate);
    shape.is_a_transposed ? shape.k += more.k : shape.m += more.m;
    shape.bytes += more.bytes;
  }
  if (list.size() > 1) shape.note = "experts";
  return shape;
}

}  // namespace

MatrixView MatrixView::transposed() const {
  MatrixView result = *this;
  std::swap(result.rows, result.cols);
  std::swap(result.row_stride, result.col_stride);
  return result;
}

MatrixView MatrixView::part(int64_t index, int64_t row, int64_t num_rows, int64_t col,
                            int64_t num_cols) const {
  MatrixView result = *this;
  result.data += (index * batch_stride + row * row_stride + col * col_stride) *
                 static_cast<int64_t>(size_of(dtype));
  result.batch = 1;
  result.rows = num_rows;
  result.cols = num_cols;
  return result;
}

MatrixView matrix_view(const Tensor& tensor) {
  STMOE_CHECK(tensor.rank() == 2 || tensor.rank() == 3, "product: of a tensor {}",
              tensor.shape().text());
  MatrixView view{tensor.raw(),      tensor.dtype(),    1,
                  tensor.dim(-2),    tensor.dim(-1),    0,
                  tensor.stride(-2), tensor.stride(-1), tensor.device()};
  if (tensor.rank() == 3) {
    view.batch = tensor.dim(0);
    view.batch_stride = tensor.stride(0);
  }
  return view;
}

void products(std::span<const Product> list, bool accumulate) {
  std::vector<Product> full;
  for (const Product& one : list) {
    check_product(one.c, one.a, one.b, accumulate);
    if (one.c.batch * one.c.rows * one.c.cols > 0 && (one.a.cols > 0 || !accumulate))
      full.push_back(one);
  }
  if (full.empty()) return;
  const ProductScope scope(profile_shape(full, accumulate));
  kernels<ProductKernels>(full[0].c.device).multiply(full, accumulate);
}

void product(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate) {
  const Product one{c, a, b};
  products({&one, 1}, accumulate);
}

}  // namespace stmoe

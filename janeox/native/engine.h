// What the engine and its kernels share: the model as Python hands it over, and the table of kernels of one kind of CPU.
//
// Weights lie in panels of 16 rows, so that one vector holds the same column of 16 rows. A result is then a sum over
// columns in their order, lane by lane, whatever else is computed beside it: a token's logits do not depend on the batch.
// Mirrored by janeox/engine/native_backend.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace janeox {

constexpr int LANES = 16;  // rows of a panel, positions of a block of the KV cache

// gcc 11 knows the bfloat16 products of AVX-512 and how to ask a processor for them.
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#define JANEOX_AVX512_BF16
#endif

struct Pair {  // two bfloat16 columns of one row; their products are added to a float32 sum, `odd` first
    uint16_t even, odd;
};

// Columns that share a scale. The widths of a matrix are padded to whole groups.
constexpr int group(int bits) { return bits == 8 ? 64 : bits == 4 ? 32 : 1; }

struct Matrix {  // y = W x + bias; P panels of 16 rows, K columns, padded
    const void* weight;      // 32, 16 bits: (P, K, 16) floats, bfloat16: (P, K/2, 16) pairs; 8: (P, K/4, 16, 4) bytes, w + 128;
                             // 4: (P, K/8, 16, 4) bytes, columns 0-3 in the low halves and 4-7 in the high ones, w + 8
    const uint16_t* scales;  // (P, K/group, 16) float16; none for 32 and 16 bits
    const float* bias;       // (P * 16), or none
    int32_t panels, columns, bits, bfloat;  // `bfloat`: the 16 bits are bfloat16
};

struct Norm {
    const float *weight, *bias;
};

struct Layer {
    Norm input, post_attention;
    Matrix query_key_value, dense, dense_h_to_4h, dense_4h_to_h;
};

struct Model {
    const Layer* layers;
    const void* embedding;    // (V, C) float32, or float16 where `half_embedding`
    const float *cos, *sin;   // (positions, R / 2)
    Norm final_norm;
    Matrix head;
    int32_t num_layers, hidden, heads, head_dim, rotary_dim, half_embedding, parallel_residual, tanh_gelu;
    float epsilon;
};

struct Cache {  // of all slots; B blocks of 16 positions; D head size
    void* keys;              // (slots, layers, heads, B, D, 16)
    void* values;            // (slots, layers, heads, B, D / 16, 16, 16): per block and 16 dimensions, position by position
    float* key_scales;       // (slots, layers, heads, B * 16), for 8 bits
    float* value_scales;
    int32_t blocks, bits;    // bits of an element: 32, 16 or 8
};

struct Input {  // the operand x of a product for some tokens, in tiles of `width` of them (kernels.h; the last may be narrower)
    float* values;   // 32, 16 bits: per tile (K, width)
    Pair* pairs;     // bfloat16: per tile (K/2, width)
    int8_t* bytes;   // 8, 4 bits: per tile (K/4, width, 4)
    float* scales;   // per tile (K/group, width)
    int32_t* sums;   // likewise: the sum of a group's bytes, times minus what its weights were raised by
    int tokens;
};

struct Head {  // one head of one row: `count` tokens whose first stands at position `start`
    const float* qkv;  // q of the first token; k and v follow at head_dim and 2 * head_dim
    float* out;
    size_t qkv_stride, out_stride;  // floats from token to token
    void *keys, *values;            // this head's part of the cache
    float *key_scales, *value_scales;
    const float *cos, *sin;
    int start, count, head_dim, rotary_dim, bits;
    float* scratch;  // head_scratch() floats
};

struct BFloat {
    uint16_t bits;
};

struct Product {  // out = A B + bias, row by row; strides in numbers
    const void *a, *b;  // A (rows, depth) and B (depth, columns), each float or bfloat16
    void* out;          // (rows, columns) likewise; float where A is
    const float* bias;  // (columns), or none
    int64_t a_stride, b_stride, out_stride;
    int32_t rows, columns, depth;
    int32_t a_along, b_along;  // whether neighbouring rows of A, columns of B lie side by side; else the depth does
    int32_t a_bfloat, b_bfloat, out_bfloat;
};

struct Heads {  // causal attention of B rows in training; all of one type, float or bfloat16, cos and sin float
    const void* qkv;   // (B, T, H, 3, D)
    const float *cos, *sin;  // (T, R / 2), or (B, T, R / 2) where `angles_by_row`
    const int32_t* begins;   // (B, T) the first token that each one sees, or none
    void* out;         // (B, T, H, D)
    const void* grad;  // its gradient
    void* to_qkv;      // the gradient of qkv
    int32_t rows, tokens, heads, head_dim, rotary_dim, angles_by_row, bfloat;
};

struct Kernels {
    const char* name;
    int tile;  // the most tokens of a tile
    bool (*supported)();
    void (*embed)(const Model&, int id, float* x);
    void (*normalize)(const float* x, const Norm&, float epsilon, int size, float* out);
    void (*gelu)(float* x, int size, bool tanh);
    // Puts one token into its place in the operand of `matrix`; x has `size` values, the rest of the columns is 0.
    void (*prepare)(const Matrix& matrix, const float* x, int size, int token, Input& input);
    // out (tokens, stride) at the rows of panels first … last - 1; added to what is there where `add`.
    void (*multiply)(const Matrix&, const Input&, int first, int last, float* out, size_t stride, bool add);
    void (*attend)(const Head&);
    // The loss of one token; its logits, `columns` (a multiple of 32) of float or bfloat16, become their gradient.
    float (*cross_entropy)(void* logits, bool bfloat, int columns, int target, float z_loss);
    // The rows and columns first … last - 1 of a product.
    void (*multiply_block)(const Product&, int first_row, int last_row, int first, int last, char* scratch);
    // One head of one row, forward or its gradient; scratch as `heads_scratch`.
    void (*attend_whole)(const Heads&, int number, bool backward, char* scratch);
    float (*read)(const uint8_t* memory, size_t bytes);
    float (*peak)(int bits, int rounds, double* done);
};

// Tokens of a tile when `tokens` are cut into the fewest, evenly.
inline int tile_width(int tokens, int most) {
    const int tiles = (tokens + most - 1) / most;
    return tiles ? (tokens + tiles - 1) / tiles : 1;
}

// Blocks of a product: B is brought into order in blocks of 64 columns and so many numbers or pairs of the depth, which stay
// in the second cache; of an A that is brought into order too, blocks are smaller.
inline int depth_of_block(const Product& p) { return p.a_along ? 512 : 1024; }

// Bytes, amply: of what heads.h takes.
inline size_t heads_scratch(const Heads& h) {
    const size_t tokens = h.tokens + 64, deep = h.head_dim + 64;
    return 4 * (8 * tokens * deep + 200 * tokens) + 4096;
}

inline size_t head_scratch(int positions, int head_dim, int tile) {
    return static_cast<size_t>(tile) * (2 * (positions + LANES) + head_dim) + head_dim;
}

// Those of that name, or the best of this machine for ""; null where there are none.
const Kernels* find_kernels(const char* name);

extern const Kernels avx512bf16_kernels, avx512_kernels, avx2_kernels, neon_kernels;

}  // namespace janeox

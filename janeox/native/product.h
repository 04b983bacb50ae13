// Matrix products of training over any `Simd`: out (rows, columns) = A (rows, depth) · B (depth, columns) + bias, of floats
// or of bfloat16 pairs. Included after kernels.h.
//
// 6 rows by 64 columns of sums stay in registers. B is brought into the order in which it is read, 64 columns of a block of
// the depth at a time, so that a block stays in the second cache for all rows; A is read where it lies, unless its rows lie
// along (a transposed one), when a block of it is brought into order too.

constexpr int WIDE = 64, HIGH = 6;

template <class E>
constexpr int elements = __is_class(E) ? 2 : 1;  // numbers of an E along the depth: a Pair has two

template <class E>
struct Left {  // A: the E of row t and step k is at[t * row + k * step]
    const E* at;
    size_t row, step;
};

template <class X>
struct Table {  // rows that lie `stride` apart
    X* at;
    size_t stride;
};

// to (T, WIDE) = from + sum over k of a(t, k) * b[k * WIDE + column].
template <int T, class E>
void sums(Left<E> a, const E* b, int count, Table<const float> from, Table<float> to) {
    constexpr int P = WIDE / N, LINE = 64 / sizeof(E);
    F acc[T][P];
    for (int t = 0; t < T; t++)
        for (int v = 0; v < P; v++) acc[t][v] = Simd::load(from.at + t * from.stride + v * N);
    for (int begin = 0; begin < count; begin += LINE) {
        if (a.step == 1)  // the next rows lie too far away for the processor to see them coming
            for (int t = 0; t < T; t++) __builtin_prefetch(a.at + (T + t) * a.row);
        const int end = count - begin < LINE ? count - begin : LINE;
        for (int k = 0; k < end; k++, a.at += a.step, b += WIDE) {
            decltype(Simd::load(b)) w[P];
            for (int v = 0; v < P; v++) w[v] = Simd::load(b + v * N);
            for (int t = 0; t < T; t++) {
                const auto x = Simd::set(a.at[t * a.row]);
                for (int v = 0; v < P; v++) acc[t][v] = Simd::fma(w[v], x, acc[t][v]);
            }
        }
    }
    for (int t = 0; t < T; t++)
        for (int v = 0; v < P; v++) Simd::store(to.at + t * to.stride + v * N, acc[t][v]);
}

template <class E, int T = HIGH>
void sums_of(int rows, Left<E> a, const E* b, int count, Table<const float> from, Table<float> to) {
    if constexpr (T > 1) {
        if (rows < T) return sums_of<E, T - 1>(rows, a, b, count, from, to);
    }
    sums<T>(a, b, count, from, to);
}

inline void join(float* to, float a, float) { *to = a; }
inline void join(BFloat* to, float a, float) { to->bits = bfloat16(a); }
inline void join(Pair* to, float a, float b) { *to = {bfloat16(a), bfloat16(b)}; }
inline void join(Pair* to, BFloat a, BFloat b) {
    const uint32_t both = a.bits | uint32_t(b.bits) << 16;
    __builtin_memcpy(to, &both, 4);
}

// 16 rows of 16 numbers → their columns; M is `Simd`, by its own instructions where it has some for it.
template <class M>
auto cross(const uint32_t* from, size_t stride, uint32_t* to, size_t wide, int)
    -> decltype(M::transpose(from, stride, to, wide)) {
    M::transpose(from, stride, to, wide);
}
template <class M>
void cross(const uint32_t* from, size_t stride, uint32_t* to, size_t wide, long) {
    for (int k = 0; k < 16; k++)
        for (int i = 0; i < 16; i++) to[k * wide + i] = from[i * stride + k];
}

// A block of an operand into order: to[k * wide + i], i below `count` and 0 up to `wide`, of `depth` numbers.
// `along`: neighbours of i lie side by side, else those of k.
template <class E, class S>
void arrange(const S* __restrict from, size_t stride, bool along, int depth, int count, int wide, E* __restrict to) {
    constexpr int G = elements<E>, FEW = 64, AHEAD = 8;
    const int steps = (depth + G - 1) / G;
    if (along) {
        for (int k = 0; k < steps; k++, from += G * stride, to += wide) {
            for (int g = 0; g < G; g++)  // rows lie too far apart for the processor to see them coming
                for (int i = 0; i < count; i += 64 / sizeof(S)) __builtin_prefetch(from + (AHEAD * G + g) * stride + i);
            if (k * G + G <= depth) {
                for (int i = 0; i < count; i++) join(to + i, from[i], from[(G - 1) * stride + i]);
            } else {
                for (int i = 0; i < count; i++) join(to + i, from[i], S{});
            }
            for (int i = count; i < wide; i++) to[i] = E{};
        }
        return;
    }
    alignas(64) E some[16][FEW] = {};
    for (int k = 0; k < steps; k += FEW) {  // so few that what is written stays in the first cache
        const int here = steps - k < FEW ? steps - k : FEW;
        for (int i = 0; i < wide; i += 16, to += 16) {
            for (int j = 0; j < 16; j++) {
                const S* row = from + (i + j) * stride + k * G;
                if (i + j < count) {
                    for (int n = 0; n < here; n++) join(some[j] + n, row[n * G], row[n * G + G - 1]);
                } else {
                    __builtin_memset(static_cast<void*>(some[j]), 0, sizeof some[j]);
                }
            }
            for (int n = 0; n < here; n += 16) {
                E* block = to + static_cast<size_t>(n) * wide;
                if (here - n >= 16) {
                    cross<Simd>(reinterpret_cast<uint32_t*>(some[0] + n), FEW, reinterpret_cast<uint32_t*>(block), wide, 0);
                } else {
                    for (int m = n; m < here; m++, block += wide)
                        for (int j = 0; j < 16; j++) block[j] = some[j][m];
                }
            }
        }
        to += static_cast<size_t>(here - 1) * wide;
    }
}

inline void put(const float* from, int count, float* to) { __builtin_memcpy(to, from, count * sizeof(float)); }
inline void put(const float* from, int count, BFloat* to) {
    for (int i = 0; i < count; i++) to[i].bits = bfloat16(from[i]);
}

// Rows [first_row, last_row) and columns [first, last) of a product; E is what is multiplied.
template <class E, class A, class B, class O>
void block_of(const Product& p, int first_row, int last_row, int first, int last, char* scratch) {
    constexpr int G = elements<E>;
    const int rows = last_row - first_row, panels = (last - first + WIDE - 1) / WIDE;
    const int deep = depth_of_block(p) * G;  // numbers
    const bool whole = sizeof(O) == 4 && (last - first) % WIDE == 0;  // sums go where they belong at once
    const bool once = p.depth <= deep;
    const int a_wide = (rows + HIGH - 1) / HIGH * HIGH;
    E* const b = reinterpret_cast<E*>(scratch);
    E* const a_block = b + WIDE * (deep / G);
    const size_t a_size = p.a_along ? static_cast<size_t>(a_wide) * (deep / G) : 0;
    const Table<float> kept{reinterpret_cast<float*>(a_block + a_size), once ? WIDE : static_cast<size_t>(panels) * WIDE};
    for (int k = 0; k < p.depth; k += deep) {
        const int depth = p.depth - k < deep ? p.depth - k : deep, steps = (depth + G - 1) / G;
        const bool begun = k > 0, ends = k + deep >= p.depth;
        const A* a = static_cast<const A*>(p.a) + (p.a_along ? k * p.a_stride + first_row : first_row * p.a_stride + k);
        if (p.a_along) arrange(a, p.a_stride, true, depth, rows, a_wide, a_block);
        for (int panel = 0; panel < panels; panel++) {
            const int column = first + panel * WIDE, count = last - column < WIDE ? last - column : WIDE;
            float start[WIDE] = {};
            if (p.bias) __builtin_memcpy(start, p.bias + column, count * sizeof(float));
            const B* from = static_cast<const B*>(p.b) + (p.b_along ? k * p.b_stride + column : column * p.b_stride + k);
            arrange(from, p.b_stride, p.b_along, depth, count, WIDE, b);
            for (int r = 0; r < rows; r += HIGH) {
                const int high = rows - r < HIGH ? rows - r : HIGH;
                O* out = static_cast<O*>(p.out) + (first_row + r) * p.out_stride + column;
                Table<float> to{once ? kept.at : kept.at + r * kept.stride + panel * WIDE, kept.stride};
                if constexpr (sizeof(O) == 4) {
                    if (whole) to = {out, static_cast<size_t>(p.out_stride)};
                }
                const Left<E> left = p.a_along ? Left<E>{a_block + r, 1, static_cast<size_t>(a_wide)}
                                               : Left<E>{reinterpret_cast<const E*>(a + r * p.a_stride), static_cast<size_t>(p.a_stride / G), 1};
                sums_of(high, left, b, steps, begun ? Table<const float>{to.at, to.stride} : Table<const float>{start, 0}, to);
                if (!whole && ends)
                    for (int t = 0; t < high; t++) put(to.at + t * to.stride, count, out + t * p.out_stride);
            }
        }
    }
}

void multiply_block(const Product& p, int first_row, int last_row, int first, int last, char* scratch) {
    const auto call = [&](auto block) { block(p, first_row, last_row, first, last, scratch); };
    if (!p.a_bfloat) return call(block_of<float, float, float, float>);
    if (p.b_bfloat) return p.out_bfloat ? call(block_of<Pair, BFloat, BFloat, BFloat>) : call(block_of<Pair, BFloat, BFloat, float>);
    return p.out_bfloat ? call(block_of<Pair, BFloat, float, BFloat>) : call(block_of<Pair, BFloat, float, float>);
}

// The kernels over any `Simd` (N floats to a vector); each kernels_*.cpp includes this with its own. No inline function of
// the standard library may be used here: the linker could keep this file's copy of it for CPUs that lack its instructions.

constexpr int N = Simd::N, V = LANES / N;  // vectors of a panel
using F = Simd::F;
using I = Simd::I;

inline F max(F a, F b) { return a > b ? a : b; }

inline float sum(const F (&v)[V]) {
    float a[LANES];
    for (int i = 0; i < V; i++) Simd::store(a + i * N, v[i]);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) a[i] += a[i + half];
    return a[0];
}

inline float largest(F v) {
    float a[N];
    Simd::store(a, v);
    float top = a[0];
    for (int i = 1; i < N; i++) top = a[i] > top ? a[i] : top;
    return top;
}

// e^x for x <= 88: 2^n e^r with |r| <= ln 2 / 2, and a Taylor polynomial of degree 7 for e^r (relative error 2e-8).
inline F exp(F x) {
    x = max(x, Simd::set(-87.3f));
    const I n = Simd::round(x * Simd::set(1.44269504f));
    const F whole = Simd::from_int(n);
    F r = Simd::fma(whole, Simd::set(-0.693359375f), x);
    r = Simd::fma(whole, Simd::set(2.12194440e-4f), r);
    F p = Simd::set(1.f / 5040);
    constexpr float factorials[] = {720.f, 120.f, 24.f, 6.f, 2.f, 1.f, 1.f};
    for (float factorial : factorials) p = Simd::fma(p, r, Simd::set(1.f / factorial));
    return p * Simd::power_of_two(n);
}

// Abramowitz and Stegun 7.1.26: absolute error 1.5e-7.
inline F erf(F x) {
    const F zero = Simd::set(0.f), one = Simd::set(1.f), size = max(x, zero - x);
    const F t = one / Simd::fma(size, Simd::set(0.3275911f), one);
    F p = Simd::set(1.061405429f);
    constexpr float coefficients[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    for (float c : coefficients) p = Simd::fma(p, t, Simd::set(c));
    const F y = one - p * t * exp(zero - size * size);
    return x < zero ? zero - y : y;
}

void gelu(float* x, int size, bool tanh) {
    for (int i = 0; i < size; i += N) {
        const F v = Simd::load(x + i), half = v * Simd::set(0.5f), one = Simd::set(1.f);
        if (tanh) {
            const F u = v * Simd::fma(v * v, Simd::set(0.0356774081f), Simd::set(0.797884561f));
            const F size = max(u, Simd::set(0.f) - u), e = exp(size * Simd::set(-2.f));
            const F t = (one - e) / (one + e);
            Simd::store(x + i, Simd::fma(half, u < Simd::set(0.f) ? Simd::set(0.f) - t : t, half));
        } else {
            Simd::store(x + i, Simd::fma(half, erf(v * Simd::set(0.707106781f)), half));
        }
    }
}

void embed(const Model& model, int id, float* x) {
    const size_t first = static_cast<size_t>(id) * model.hidden;
    for (int i = 0; i < model.hidden; i += N) {
        Simd::store(x + i, model.half_embedding
                               ? Simd::load(static_cast<const uint16_t*>(model.embedding) + first + i)
                               : Simd::load(static_cast<const float*>(model.embedding) + first + i));
    }
}

void normalize(const float* x, const Norm& norm, float epsilon, int size, float* out) {
    F total[V] = {}, squares[V] = {};
    for (int i = 0; i < size; i += LANES)
        for (int v = 0; v < V; v++) total[v] = total[v] + Simd::load(x + i + v * N);
    const F mean = Simd::set(sum(total) / size);
    for (int i = 0; i < size; i += LANES) {
        for (int v = 0; v < V; v++) {
            const F d = Simd::load(x + i + v * N) - mean;
            squares[v] = Simd::fma(d, d, squares[v]);
        }
    }
    const F factor = Simd::set(1.f / __builtin_sqrtf(sum(squares) / size + epsilon));
    for (int i = 0; i < size; i += N) {
        const F d = (Simd::load(x + i) - mean) * factor;
        Simd::store(out + i, Simd::fma(d, Simd::load(norm.weight + i), Simd::load(norm.bias + i)));
    }
}

// Tokens of a tile. Of integers each token also needs an integer sum a panel in registers: where there are many tokens,
// fewer go together, so that two panels share each load of theirs.
inline int width(const Matrix& w, const Input& x) {
    return tile_width(x.tokens, w.bits < 16 && x.tokens > Simd::TILE ? Simd::INTEGER_TILE : Simd::TILE);
}

// ── products with float weights, pairs of them, keys and values ────────────────────────────────────────────────────────────────────

template <int M, int T>
inline void finish(const F (&acc)[M][T][V], const float* bias, float* out, size_t stride, bool add) {
    for (int m = 0; m < M; m++) {
        for (int t = 0; t < T; t++) {
            for (int v = 0; v < V; v++) {
                const int place = m * LANES + v * N;
                F y = bias ? acc[m][t][v] + Simd::load(bias + place) : acc[m][t][v];
                if (add) y = y + Simd::load(out + t * stride + place);
                Simd::store(out + t * stride + place, y);
            }
        }
    }
}

// out[t * stride + 16 p + lane] = sum over k of b[p][k][lane] * a[k][t], for M panels and T tokens. The rows k of a panel
// lie in blocks of `block`, `jump` elements apart; panels lie `step` elements apart. A is float, or Pair where E is.
template <int M, int T, class E, class A>
void product(const E* b, size_t step, int block, size_t jump, const A* a, int columns, const float* bias, float* out,
             size_t stride, bool add) {
    F acc[M][T][V] = {};
    for (int done = 0; done < columns; done += block, b += jump) {
        const int count = columns - done < block ? columns - done : block;
        const E* row = b;
        for (int k = 0; k < count; k++, row += LANES, a += T) {
            decltype(Simd::load(b)) w[M][V];
            for (int m = 0; m < M; m++) {
                __builtin_prefetch(reinterpret_cast<const char*>(row + m * step) + 2048);
                for (int v = 0; v < V; v++) w[m][v] = Simd::load(row + m * step + v * N);
            }
            for (int t = 0; t < T; t++) {
                const auto x = Simd::set(a[t]);
                for (int m = 0; m < M; m++)
                    for (int v = 0; v < V; v++) acc[m][t][v] = Simd::fma(w[m][v], x, acc[m][t][v]);
            }
        }
    }
    finish(acc, bias, out, stride, add);
}

// Panels side by side for T tokens: enough sums in flight to hide the latency of one, few enough for the registers.
constexpr int abreast(int tokens) { return Simd::REGISTERS >= tokens * V * 4 + 5 * V ? 4 : Simd::REGISTERS >= tokens * V * 2 + 3 * V ? 2 : 1; }

template <class E>
struct Operand {
    const E* b;
    size_t step, jump;
    int block, panels;
};

template <class E, int T = 1, class A>
void products(const Operand<E>& w, const A* a, int tokens, int columns, const float* bias, float* out, size_t stride,
              bool add) {
    if constexpr (T < Simd::TILE) {
        if (tokens > T) return products<E, T + 1>(w, a, tokens, columns, bias, out, stride, add);
    }
    constexpr int M = abreast(T);
    int p = 0;
    for (; p + M <= w.panels; p += M) {
        product<M, T>(w.b + p * w.step, w.step, w.block, w.jump, a, columns, bias ? bias + p * LANES : nullptr,
                      out + p * LANES, stride, add);
    }
    for (; p < w.panels; p++) {
        product<1, T>(w.b + p * w.step, w.step, w.block, w.jump, a, columns, bias ? bias + p * LANES : nullptr,
                      out + p * LANES, stride, add);
    }
}

// ── products with integer weights ───────────────────────────────────────────────────────────────────────────────────

// The same for 8 and 4 bits: exact 32-bit sums over each group of columns, then their float sum in the order of the groups.
template <int BITS, int M, int T>
void product(const uint8_t* w, size_t step, const uint16_t* scales, size_t scale_step, const Input& x, size_t place,
             int groups, const float* bias, float* out, size_t stride, bool add) {
    constexpr int G = group(BITS);
    const int8_t* a = x.bytes + place * G;
    const float* a_scales = x.scales + place;
    const int32_t* sums = x.sums + place;
    F acc[M][T][V] = {};
    for (int g = 0; g < groups; g++, a_scales += T, sums += T, scales += LANES) {
        I part[M][T][V];
        for (int t = 0; t < T; t++) {
            const I first = Simd::set_int(sums[t]);
            for (int m = 0; m < M; m++)
                for (int v = 0; v < V; v++) part[m][t][v] = first;
        }
        for (int k = 0; k < G; k += BITS == 8 ? 4 : 8, w += 64, a += (BITS == 8 ? 4 : 8) * T) {
            I b[M][V];
            for (int m = 0; m < M; m++) {
                __builtin_prefetch(w + m * step + 4096);
                for (int v = 0; v < V; v++) b[m][v] = Simd::load_int(w + m * step + v * 4 * N);
            }
            for (int t = 0; t < T; t++) {
                const I x0 = Simd::four_bytes(a + 4 * t), x1 = BITS == 8 ? x0 : Simd::four_bytes(a + 4 * (T + t));
                for (int m = 0; m < M; m++) {
                    for (int v = 0; v < V; v++) {
                        I& s = part[m][t][v];
                        if constexpr (BITS == 8) {
                            s = Simd::dot8(s, b[m][v], x0);
                        } else {
                            s = Simd::dot4(Simd::dot4(s, Simd::low(b[m][v]), x0), Simd::high(b[m][v]), x1);
                        }
                    }
                }
            }
        }
        for (int m = 0; m < M; m++) {
            for (int v = 0; v < V; v++) {
                const F scale = Simd::load(scales + m * scale_step + v * N);
                for (int t = 0; t < T; t++) {
                    acc[m][t][v] = Simd::fma(Simd::from_int(part[m][t][v]), scale * Simd::set(a_scales[t]), acc[m][t][v]);
                }
            }
        }
    }
    finish(acc, bias, out, stride, add);
}

template <int BITS, int T = 1>
void products(const Matrix& w, const Input& x, size_t place, int tokens, int first, int last, float* out, size_t stride,
              bool add) {
    if constexpr (T < Simd::TILE) {
        if (tokens > T) return products<BITS, T + 1>(w, x, place, tokens, first, last, out, stride, add);
    }
    // Each panel needs the integer and the float sums. For few tokens the memory is the limit: it is read fastest from one
    // place at a time, and the sums of the next groups of columns begin before those of the last have ended.
    constexpr int M = T <= 2 ? 1 : abreast(2 * T);
    const int groups = w.columns / group(BITS);
    const size_t step = static_cast<size_t>(w.columns) * LANES * BITS / 8, scale_step = static_cast<size_t>(groups) * LANES;
    const uint8_t* weight = static_cast<const uint8_t*>(w.weight);
    int p = first;
    for (; p + M <= last; p += M) {
        product<BITS, M, T>(weight + p * step, step, w.scales + p * scale_step, scale_step, x, place, groups,
                            w.bias ? w.bias + p * LANES : nullptr, out + p * LANES, stride, add);
    }
    for (; p < last; p++) {
        product<BITS, 1, T>(weight + p * step, step, w.scales + p * scale_step, scale_step, x, place, groups,
                            w.bias ? w.bias + p * LANES : nullptr, out + p * LANES, stride, add);
    }
}

// `columns` counts elements E, `a` has as many of each token.
template <class E, class A>
void float_products(const Matrix& w, const A* a, int columns, int tile, int tokens, int first, int last, float* out,
                    size_t stride, bool add) {
    const size_t step = static_cast<size_t>(columns) * LANES;
    const Operand<E> panels{static_cast<const E*>(w.weight) + first * step, step, 0, columns, last - first};
    products(panels, a + static_cast<size_t>(tile) * columns, tokens, columns, w.bias ? w.bias + first * LANES : nullptr,
             out + first * LANES, stride, add);
}

void multiply(const Matrix& w, const Input& x, int first, int last, float* out, size_t stride, bool add) {
    const int T = width(w, x);
    for (int tile = 0; tile < x.tokens; tile += T) {
        const int tokens = x.tokens - tile < T ? x.tokens - tile : T;
        float* rows = out + tile * stride;
        const size_t place = static_cast<size_t>(tile) * (w.columns / group(w.bits));
        if (w.bfloat) {
            float_products<Pair>(w, x.pairs, w.columns / 2, tile, tokens, first, last, rows, stride, add);
        } else if (w.bits == 32) {
            float_products<float>(w, x.values, w.columns, tile, tokens, first, last, rows, stride, add);
        } else if (w.bits == 16) {
            float_products<uint16_t>(w, x.values, w.columns, tile, tokens, first, last, rows, stride, add);
        } else if (w.bits == 8) {
            products<8>(w, x, place, tokens, first, last, rows, stride, add);
        } else {
            products<4>(w, x, place, tokens, first, last, rows, stride, add);
        }
    }
}

// To the nearest, ties to even.
inline uint16_t bfloat16(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return static_cast<uint16_t>(x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void prepare(const Matrix& w, const float* x, int size, int token, Input& input) {
    const int most = width(w, input), first = token - token % most, column = token - first;
    const int T = input.tokens - first < most ? input.tokens - first : most;
    if (w.bfloat) {
        Pair* out = input.pairs + static_cast<size_t>(first) * (w.columns / 2) + column;
        for (int k = 0; k < w.columns; k += 2) {
            out[static_cast<size_t>(k / 2) * T] = k < size ? Pair{bfloat16(x[k]), bfloat16(x[k + 1])} : Pair{};
        }
        return;
    }
    if (w.bits >= 16) {
        float* out = input.values + static_cast<size_t>(first) * w.columns + column;
        for (int k = 0; k < w.columns; k++) out[static_cast<size_t>(k) * T] = k < size ? x[k] : 0.f;
        return;
    }
    const int G = group(w.bits);
    for (int g = 0; g < w.columns / G; g++) {
        F top = Simd::set(0.f);
        const int count = size - g * G < G ? size - g * G : G;  // a multiple of 16, or nothing
        for (int k = 0; k < count; k += N) {
            const F v = Simd::load(x + g * G + k);
            top = max(top, max(v, Simd::set(0.f) - v));
        }
        const float scale = largest(top) / 127.f;
        const F factor = Simd::set(scale > 0.f ? 1.f / scale : 0.f);
        int8_t* out = input.bytes + static_cast<size_t>(first) * w.columns + static_cast<size_t>(g) * G * T + column * 4;
        int32_t total = 0;
        for (int k = 0; k < G; k += N, out += N * T) {
            int8_t bytes[N] = {};
            if (k < count) Simd::store_bytes(bytes, Simd::round(Simd::load(x + g * G + k) * factor));
            for (int i = 0; i < N; i++) total += bytes[i];
            for (int i = 0; i < N; i += 4) __builtin_memcpy(out + i * T, bytes + i, 4);
        }
        const size_t place = static_cast<size_t>(first) * (w.columns / G) + static_cast<size_t>(g) * T + column;
        input.scales[place] = scale;
        input.sums[place] = (w.bits == 8 ? Simd::OFFSET : -8) * total;
    }
}

// ── what a core can do at best ──────────────────────────────────────────────────────────────────────────────────────

// Reads every cache line of a portion of memory; the result means nothing.
float read(const uint8_t* p, size_t bytes) {
    I found[4][V] = {};  // several, so that no load waits for a sum
    const I x = Simd::set_int(1);
    for (size_t i = 0; i + 256 <= bytes; i += 256) {
        for (int line = 0; line < 4; line++) {
            __builtin_prefetch(p + i + line * 64 + 3072);
            for (int v = 0; v < V; v++) {
                found[line][v] = Simd::dot4(found[line][v], Simd::load_int(p + i + line * 64 + v * 4 * N), x);
            }
        }
    }
    F total = Simd::set(0.f);
    for (auto& line : found)
        for (I one : line) total = total + Simd::from_int(one);
    return largest(total);
}

// Multiplies registers `rounds` times, 16 bits as pairs; `done` gets the multiplications and additions of numbers. The
// result means nothing.
float peak(int bits, int rounds, double* done) {
    constexpr int CHAINS = 12;  // enough to hide the latency of each
    const F half = Simd::set(0.5f);
    const I x = Simd::set_int(0x01020301);
    const auto multiply = [&](auto first, auto step) {
        decltype(first) sums[CHAINS];
        for (auto& s : sums) s = first;
        for (int r = 0; r < rounds; r++)
            for (auto& s : sums) s = step(s);
        for (int i = 1; i < CHAINS; i++) sums[0] = sums[0] + sums[i];
        return sums[0];
    };
    *done = (bits == 32 ? 2.0 : bits == 16 ? 4.0 : 8.0) * rounds * CHAINS * N;
    if (bits == 32) return largest(multiply(half, [&](F s) { return Simd::fma(s, half, half); }));
    if (bits == 16) return largest(multiply(half, [&](F s) { return Simd::fma(x, x, s); }));
    return largest(Simd::from_int(multiply(x, [&](I s) { return Simd::dot8(s, x, x); })));
}

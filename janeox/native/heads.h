// Causal attention of training over any `Simd`, one head of one row of the batch at a time: forward, and the gradient, for
// which scores are computed again. Included after product.h, whose sums of 6 rows by 64 columns do all products: of floats,
// or of bfloat16 pairs with float32 scores and softmax.

inline float number(float x) { return x; }
inline float number(BFloat x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float y;
    __builtin_memcpy(&y, &bits, 4);
    return y;
}

alignas(64) constexpr float ZEROS[WIDE] = {};
constexpr Table<const float> NOTHING{ZEROS, 0};
constexpr int QUERIES = 8 * HIGH;  // of a block

// A head's tensors in their order of reading, in `scratch`; E is what is multiplied, S what is stored.
template <class E, class S>
struct HeadWork {
    static constexpr int G = elements<E>;
    const Heads& h;
    const int row, head, T, D, panels;  // panels of 64 dimensions
    const size_t stride;                // of qkv, from token to token
    char* free;

    HeadWork(const Heads& h, int number, char* scratch)
        : h(h), row(number / h.heads), head(number % h.heads), T(h.tokens), D(h.head_dim), panels((D + WIDE - 1) / WIDE),
          stride(static_cast<size_t>(h.heads) * 3 * D), free(scratch) {}

    template <class X>
    X* take(size_t count) {
        X* taken = reinterpret_cast<X*>(free);
        free += (count * sizeof(X) + 63) / 64 * 64;
        return taken;
    }

    size_t place(int part) const {
        return static_cast<size_t>(row) * T * stride + (static_cast<size_t>(head) * 3 + part) * D;
    }
    const S* part(int which) const { return static_cast<const S*>(h.qkv) + place(which); }
    const S* of_out(const void* tensor) const {
        return static_cast<const S*>(tensor) + (static_cast<size_t>(row) * T * h.heads + head) * D;
    }
    size_t out_stride() const { return static_cast<size_t>(h.heads) * D; }

    // Turns one token's vector forth, or back for a gradient.
    template <class X, class Y>
    void turn(const X* from, int token, float direction, Y* to) const {
        const int half = h.rotary_dim / 2;
        const size_t angles = (h.angles_by_row ? static_cast<size_t>(row) * T + token : token) * static_cast<size_t>(half);
        const float *cos = h.cos + angles, *sin = h.sin + angles;
        for (int d = 0; d < half; d++) {
            const float a = number(from[d]), b = number(from[d + half]), s = direction * sin[d];
            join(to + d, a * cos[d] - b * s, 0.f);
            join(to + d + half, b * cos[d] + a * s, 0.f);
        }
        for (int d = 2 * half; d < D; d++) join(to + d, number(from[d]), 0.f);
    }

    S* turned(int which) {
        S* to = take<S>(static_cast<size_t>(T) * D);
        for (int t = 0; t < T; t++) turn(part(which) + t * stride, t, 1.f, to + static_cast<size_t>(t) * D);
        return to;
    }

    // (T, D) as the transposed B of a product: panels of 64 tokens, by dimension.
    E* by_dimension(const S* from, size_t step) {
        const size_t panel = static_cast<size_t>((D + G - 1) / G) * WIDE;
        E* to = take<E>(panel * ((T + WIDE - 1) / WIDE));
        for (int t = 0; t < T; t += WIDE) {
            arrange(from + t * step, step, false, D, T - t < WIDE ? T - t : WIDE, WIDE, to + t / WIDE * panel);
        }
        return to;
    }

    // `count` rows of (…, D) as B: panels of 64 dimensions, by token.
    void by_token(const S* from, size_t step, int count, E* to) const {
        for (int p = 0; p < panels; p++) {
            const int wide = D - p * WIDE < WIDE ? D - p * WIDE : WIDE;
            arrange(from + p * WIDE, step, true, count, wide, WIDE, to + static_cast<size_t>(p) * by_token_panel(count));
        }
    }
    static size_t by_token_panel(int count) { return static_cast<size_t>((count + G - 1) / G) * WIDE; }
    E* by_token(const S* from, size_t step) {
        E* to = take<E>(by_token_panel(T) * panels);
        by_token(from, step, T, to);
        return to;
    }

    int first_key(int query) const { return h.begins ? h.begins[static_cast<size_t>(row) * T + query] : 0; }

    // Some tokens' rows of numbers, which lie whole in memory, as A.
    static Left<E> left(const S* rows, size_t step) { return {reinterpret_cast<const E*>(rows), step / G, 1}; }

    // Scores (rows, wide) of some queries with the keys from `first` on.
    void scores(const S* queries, size_t step, int rows, const E* keys, int first, int wide, Table<float> to) const {
        const size_t panel = static_cast<size_t>((D + G - 1) / G) * WIDE;
        for (int w = 0; w < wide; w += WIDE) {
            sums_of(rows, left(queries, step), keys + (first + w) / WIDE * panel, D / G, NOTHING, {to.at + w, to.stride});
        }
    }

    // Of keys or values in panels by token, those of one panel from token `first` on.
    const E* from_token(const E* by_token, int panel, int first) const {
        return by_token + panel * by_token_panel(T) + static_cast<size_t>(first / G) * WIDE;
    }

    // One row of scores → probabilities; it sees `low` … `high` - 1, the rest up to `wide` becomes 0.
    void softmax(float* s, int low, int high, int wide) const {
        const float none = -1e30f, scale = 1.f / __builtin_sqrtf(static_cast<float>(D));
        for (int j = 0; j < low; j++) s[j] = none;
        for (int j = high; j < wide; j++) s[j] = none;
        F top = Simd::set(none);
        for (int j = 0; j < wide; j += N) top = max(top, Simd::load(s + j));
        const F peak = Simd::set(largest(top) * scale), factor = Simd::set(scale);
        const F zero = Simd::set(0.f);
        F total = zero;
        for (int j = 0; j < wide; j += N) {
            const F x = Simd::fma(Simd::load(s + j), factor, zero - peak);
            Simd::store(s + j, Simd::fma(x, zero, exp(x)));  // 0 times what is no number keeps it so; `exp` would not
        }
        for (int j = 0; j < low; j++) s[j] = 0.f;
        for (int j = high; j < wide; j++) s[j] = 0.f;
        for (int j = 0; j < wide; j += N) total = total + Simd::load(s + j);
        float parts[N], sum = 0.f;
        Simd::store(parts, total);
        for (float part : parts) sum += part;
        const F share = Simd::set(1.f / sum);
        for (int j = 0; j < wide; j += N) Simd::store(s + j, Simd::load(s + j) * share);
    }
};

inline int rounded_up(int x, int unit) { return (x + unit - 1) / unit * unit; }

template <class E, class S>
void attend_forward(const Heads& h, int number, char* scratch) {
    HeadWork<E, S> work(h, number, scratch);
    constexpr int G = elements<E>;
    const int T = work.T, D = work.D, most = rounded_up(T, WIDE);
    const S* queries = work.turned(0);
    const S* k = work.turned(1);
    const E *keys = work.by_dimension(k, D), *values = work.by_token(work.part(2), work.stride);
    float* p = work.template take<float>(static_cast<size_t>(HIGH) * most);
    S* rounded = work.template take<S>(static_cast<size_t>(HIGH) * most);
    S* out = const_cast<S*>(work.of_out(h.out));
    for (int start = 0; start < T; start += HIGH) {
        const int rows = T - start < HIGH ? T - start : HIGH, first = work.first_key(start) / WIDE * WIDE;
        const int wide = rounded_up(start + rows - first, WIDE);
        work.scores(queries + static_cast<size_t>(start) * D, D, rows, keys, first, wide, {p, size_t(most)});
        for (int r = 0; r < rows; r++) {
            work.softmax(p + r * most, work.first_key(start + r) - first, start + r + 1 - first, wide);
            put(p + r * most, wide, rounded + r * most);
        }
        for (int panel = 0; panel < work.panels; panel++) {
            float sums[HIGH * WIDE];
            const int count = D - panel * WIDE < WIDE ? D - panel * WIDE : WIDE, depth = rounded_up(start + rows - first, G);
            sums_of(rows, work.left(rounded, most), work.from_token(values, panel, first), depth / G, NOTHING, {sums, WIDE});
            for (int r = 0; r < rows; r++) put(sums + r * WIDE, count, out + (start + r) * work.out_stride() + panel * WIDE);
        }
    }
}

template <class E, class S>
void attend_backward(const Heads& h, int number, char* scratch) {
    HeadWork<E, S> work(h, number, scratch);
    constexpr int G = elements<E>;
    const int T = work.T, D = work.D, most = rounded_up(T, WIDE), deep = work.panels * WIDE;
    const size_t out_stride = work.out_stride();
    const float scale = 1.f / __builtin_sqrtf(static_cast<float>(D));
    const S* queries = work.turned(0);
    const S* k = work.turned(1);
    const S* grad = work.of_out(h.grad);
    const E *keys = work.by_dimension(k, D), *values = work.by_dimension(work.part(2), work.stride);
    const E* keys_by_token = work.by_token(k, D);
    float* to_keys = work.template take<float>(static_cast<size_t>(most) * deep);
    float* to_values = work.template take<float>(static_cast<size_t>(most) * deep);
    __builtin_memset(to_keys, 0, sizeof(float) * most * deep);
    __builtin_memset(to_values, 0, sizeof(float) * most * deep);
    float* p = work.template take<float>(static_cast<size_t>(HIGH) * most);
    float* to_p = work.template take<float>(static_cast<size_t>(HIGH) * most);
    S* probabilities = work.template take<S>(static_cast<size_t>(QUERIES) * most);
    S* to_scores = work.template take<S>(static_cast<size_t>(QUERIES) * most);
    E* turned_over = work.template take<E>(static_cast<size_t>(QUERIES / G) * most);
    float* sums = work.template take<float>(static_cast<size_t>(HIGH) * deep);  // to the queries of a tile
    E* block = work.template take<E>(static_cast<size_t>(QUERIES / G) * deep);
    S* to_qkv = static_cast<S*>(h.to_qkv);
    for (int start = 0; start < T; start += QUERIES) {
        const int queries_here = T - start < QUERIES ? T - start : QUERIES, first = work.first_key(start) / WIDE * WIDE;
        const int width = rounded_up(start + queries_here - first, WIDE);
        for (int q = 0; q < queries_here; q += HIGH) {
            const int rows = queries_here - q < HIGH ? queries_here - q : HIGH, token = start + q;
            const int wide = rounded_up(token + rows - first, WIDE);
            work.scores(queries + static_cast<size_t>(token) * D, D, rows, keys, first, wide, {p, size_t(most)});
            work.scores(grad + token * out_stride, out_stride, rows, values, first, wide, {to_p, size_t(most)});
            for (int r = 0; r < rows; r++) {
                float *of_row = p + r * most, *to_row = to_p + r * most;
                S *kept = probabilities + (q + r) * most, *kept_to = to_scores + (q + r) * most;
                work.softmax(of_row, work.first_key(token + r) - first, token + r + 1 - first, wide);
                F dot = Simd::set(0.f);
                for (int j = 0; j < wide; j += N) dot = Simd::fma(Simd::load(of_row + j), Simd::load(to_row + j), dot);
                float parts[N], total = 0.f;
                Simd::store(parts, dot);
                for (float part : parts) total += part;
                const F mean = Simd::set(total), factor = Simd::set(scale);
                for (int j = 0; j < wide; j += N) {
                    Simd::store(to_row + j, (Simd::load(to_row + j) - mean) * Simd::load(of_row + j) * factor);
                }
                put(of_row, wide, kept);
                put(to_row, wide, kept_to);
                __builtin_memset(static_cast<void*>(kept + wide), 0, sizeof(S) * (width - wide));
                __builtin_memset(static_cast<void*>(kept_to + wide), 0, sizeof(S) * (width - wide));
            }
            const Left<E> left = work.left(to_scores + static_cast<size_t>(q) * most, most);
            for (int panel = 0; panel < work.panels; panel++) {
                sums_of(rows, left, work.from_token(keys_by_token, panel, first), rounded_up(token + rows - first, G) / G,
                        NOTHING, {sums + panel * WIDE, size_t(deep)});
            }
            for (int r = 0; r < rows; r++) {
                work.turn(sums + r * deep, token + r, -1.f, to_qkv + work.place(0) + (token + r) * work.stride);
            }
        }
        const auto add = [&](const S* of_queries, const S* with, size_t step, float* to) {
            arrange(of_queries, most, true, queries_here, width, width, turned_over);
            work.by_token(with, step, queries_here, block);
            const int steps = (queries_here + G - 1) / G;
            for (int key = 0; key < start + queries_here - first; key += HIGH) {
                // Queries before the key do not see it.
                const int from = first + key > start ? (first + key - start) / G : 0;
                const int rows = width - key < HIGH ? width - key : HIGH;
                const Left<E> left{turned_over + static_cast<size_t>(from) * width + key, 1, static_cast<size_t>(width)};
                for (int panel = 0; panel < work.panels; panel++) {
                    const E* b = block + panel * work.by_token_panel(queries_here) + static_cast<size_t>(from) * WIDE;
                    float* c = to + static_cast<size_t>(first + key) * deep + panel * WIDE;
                    sums_of(rows, left, b, steps - from, {c, size_t(deep)}, {c, size_t(deep)});
                }
            }
        };
        add(probabilities, grad + start * out_stride, out_stride, to_values);
        add(to_scores, queries + static_cast<size_t>(start) * D, D, to_keys);
    }
    for (int t = 0; t < T; t++) {
        work.turn(to_keys + static_cast<size_t>(t) * deep, t, -1.f, to_qkv + work.place(1) + t * work.stride);
        put(to_values + static_cast<size_t>(t) * deep, D, to_qkv + work.place(2) + t * work.stride);
    }
}

void attend_whole(const Heads& h, int number, bool backward, char* scratch) {
    if (h.bfloat) {
        backward ? attend_backward<Pair, BFloat>(h, number, scratch) : attend_forward<Pair, BFloat>(h, number, scratch);
    } else {
        backward ? attend_backward<float, float>(h, number, scratch) : attend_forward<float, float>(h, number, scratch);
    }
}

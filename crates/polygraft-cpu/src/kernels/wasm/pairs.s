# Groups of four rows by two panels of 4-bit weights: see pairs.rs, whose polygraft_pairs_tiles these are, without and with
# asking for what is read next.
#
# Arguments, by their numbers:
#    0 words            1 words of the second panel    2 codes           3 corrections    4 shares
#    5 scales           6 scales of the second         7 pairs           8 from           9 its stride
#   10 out             11 its stride                  12 units          13 tops          14 groups
#   15, 16, 17 what codes, corrections and shares, and tops go on by from group to group
#   18 what is read next, and 19 what it goes on by from pair to pair, of the second function
# Locals:
#   59, 60 words of the two panels             20, 21 their scales       22 pairs
#   23, 24 weights of the two panels           27-34 sums of four rows by two panels, 16 bits a lane
#   25, 26 what is in every lane               35-42 the same of the first block of a pair
#                                              43-58 sums of 32 bits, four vectors a row

# local = local + by
.macro advance local by
    local.get \local
    i32.const \by
    i32.add
    local.set \local
.endm

# sum = sum + products of the codes in every lane
.macro products sum weights
    local.get \sum
    local.get 25
    local.get \weights
    i16x8.relaxed_dot_i8x16_i7x16_s
    i16x8.add
    local.set \sum
.endm

.macro row codes first second
    local.get 2
    v128.load32_splat \codes:p2align=0
    local.set 25
    products \first 23
    products \second 24
.endm

# A pair of inputs: the weights of both panels with the codes of four rows, which are 36 bytes from each other.
.macro turn words
    local.get 59
    v128.load \words:p2align=0
    local.set 23
    local.get 60
    v128.load \words:p2align=0
    local.set 24
    row 0 27 28
    row 36 29 30
    row 72 31 32
    row 108 33 34
    advance 2 2
.endm

.macro corrected corrections first second
    local.get 3
    v128.load32_splat \corrections:p2align=0
    local.tee \first
    local.set \second
.endm

# A block: sums start from the rows' corrections. Codes go on behind the fourth row: 4 x 36, less the 16 pairs.
.macro block a b c d
    corrected \a 27 28
    corrected \b 29 30
    corrected \c 31 32
    corrected \d 33 34
    .irp words, 0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240
    turn \words
    .endr
    advance 2 112
    advance 59 256
    advance 60 256
.endm

.macro keep from to
    local.get \from
    local.set \to
.endm

# sum = sum + lanes of both blocks x scales x shares; the sum and the lanes are on the stack
.macro scaled sum scales at shares
    local.get \scales
    v128.load \at:p2align=0
    local.get \shares
    i16x8.relaxed_q15mulr_s
    i32x4.dot_i16x8_s
    i32x4.add
    local.set \sum
.endm

# Columns 0 to 3 stand in even lanes of the first block and in odd ones of the second, columns 4 to 7 the other way round.
.macro panel first second scales low high
    local.get \low
    local.get \first
    local.get \second
    i8x16.shuffle 0, 1, 18, 19, 4, 5, 22, 23, 8, 9, 26, 27, 12, 13, 30, 31
    scaled \low \scales 0 25
    local.get \high
    local.get \first
    local.get \second
    i8x16.shuffle 16, 17, 2, 3, 20, 21, 6, 7, 24, 25, 10, 11, 28, 29, 14, 15
    scaled \high \scales 16 26
.endm

.macro shared low high
    local.get 4
    v128.load32_splat \low:p2align=0
    local.set 25
    local.get 4
    v128.load32_splat \high:p2align=0
    local.set 26
.endm

# out = from + float(sum) x units x top
.macro stored at sum
    local.get 10
    local.get \sum
    f32x4.convert_i32x4_s
    local.get 12
    v128.load \at:p2align=0
    local.get 25
    f32x4.mul
    local.get 8
    v128.load \at:p2align=0
    f32x4.relaxed_madd
    v128.store \at:p2align=0
.endm

.macro stored_row top a b c d
    local.get 13
    v128.load32_splat \top:p2align=0
    local.set 25
    stored 0 \a
    stored 16 \b
    stored 32 \c
    stored 48 \d
    go 8 9
    go 10 11
.endm

.macro zero sum
    v128.const 0, 0
    local.set \sum
.endm

# local = local + by, another local
.macro go local by
    local.get \local
    local.get \by
    i32.add
    local.set \local
.endm

# Asks for a line of what is read next: nothing waits for what was loaded.
.macro ask
    local.get 18
    v128.load 0:p2align=0
    drop
    go 18 19
.endm

.macro nothing
.endm

# A function, with something to do for each pair of blocks.
.macro function name each
    .globl \name
    .type \name,@function
\name:
    .functype \name (i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32) -> ()
    .local i32, i32, i32, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, i32, i32
    loop
    keep 0 59
    keep 1 60
    keep 5 20
    keep 6 21
    keep 7 22
    .irp sum, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58
    zero \sum
    .endr
    loop
    \each
    block 0 4 8 12
    keep 27 35
    keep 28 36
    keep 29 37
    keep 30 38
    keep 31 39
    keep 32 40
    keep 33 41
    keep 34 42
    block 16 20 24 28
    shared 0 4
    panel 35 27 20 43 44
    panel 36 28 21 45 46
    shared 8 12
    panel 37 29 20 47 48
    panel 38 30 21 49 50
    shared 16 20
    panel 39 31 20 51 52
    panel 40 32 21 53 54
    shared 24 28
    panel 41 33 20 55 56
    panel 42 34 21 57 58
    advance 3 32
    advance 4 32
    advance 20 32
    advance 21 32
    advance 22, -1
    local.get 22
    br_if 0
    end_loop
    stored_row 0 43 44 45 46
    stored_row 4 47 48 49 50
    stored_row 8 51 52 53 54
    stored_row 12 55 56 57 58
    go 2 15
    go 3 16
    go 4 16
    go 13 17
    advance 14, -1
    local.get 14
    br_if 0
    end_loop
    end_function
.endm

    function polygraft_pairs_tiles nothing
    function polygraft_pairs_tiles_asking ask

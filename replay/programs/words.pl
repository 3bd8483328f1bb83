# Counts the words of standard input and prints the most frequent ones, with the lines they are on.
use strict;
my (%count, %lines);
while (my $line = <STDIN>) {
    for my $word (split ' ', $line) {
        $count{$word}++;
        push @{$lines{$word}}, $. if $count{$word} < 40;
    }
}
my @words = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
for my $word (@words[0 .. 199]) {
    print "$word $count{$word} ", join(',', @{$lines{$word}}), "\n";
}

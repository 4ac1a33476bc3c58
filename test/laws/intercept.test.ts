import { map } from 'rxjs';
import { describe, test } from 'vitest';
import { intercept } from '../../src/operators/intercept.ts';
import { stageLaws } from '../../src/testing/laws/stage-laws.ts';

describe('intercept: identity', () => {
  for (const law of stageLaws({ name: 'intercept', make: () => intercept(map(e => e)) }))
    test(law.name, () => law.run());
});
